"""What results are called: UIDs that follow from the scan and from what answered, so that a second run gives the same.

An archive takes a result that is sent twice as the one that it has. Another network, other weights, another operating
point or another version of ichseq make other results.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from pydicom.uid import PYDICOM_ROOT_UID, generate_uid

import ichseq
from ichseq.ct.series import Series
from ichseq.exported.loaded import ExportedModel
from ichseq.inference.model_ensemble import ModelEnsemble
from ichseq.networks.named import network_of

NAME = "ichseq"


@dataclass(frozen=True)
class Answerer:
    """What answered.

    Attributes:
        name: of the network that ships, or what there is instead.
        digest: stands for weights, settings, views and what a calibration made of the scores.
    """

    name: str
    digest: str

    @classmethod
    def of(cls, ensemble: ModelEnsemble, calibration_notes: list[str]) -> "Answerer":
        """The models of an ensemble, with the notes on the calibration that was applied."""
        names = [network_of(model.trained_on) or "a network of one's own" for model in ensemble.models]
        name = names[0] if len(set(names)) == 1 else "several networks"
        digest = hashlib.blake2b(digest_size=16)
        for model in ensemble.models:
            digest.update(json.dumps(dataclasses.asdict(model.config), sort_keys=True, default=str).encode())
            if isinstance(model, ExportedModel):
                digest.update("".join(model.digests).encode())
                continue
            for key, tensor in sorted(model.state_dict().items()):
                digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(json.dumps([ensemble.views, calibration_notes, ichseq.__version__]).encode())
        return cls(name, digest.hexdigest())

    def uid(self, *parts: str) -> str:
        """The UID of something that belongs to the answerer alone."""
        return str(generate_uid(PYDICOM_ROOT_UID, [NAME, self.digest, *parts]))

    def uid_in(self, series: Series, *parts: str) -> str:
        """The UID of something that this answerer says of a series."""
        return self.uid(series.key, *parts)
