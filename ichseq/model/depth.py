"""How deep in a backbone each parameter lies, by the blocks that timm divides it into."""

from timm.models import group_parameters
from torch import nn

from ichseq.errors import ConfigError


def blocks_of(backbone: nn.Module) -> dict[str, int]:
    """The number of the block that each parameter of a backbone belongs to, by its name; 0 is the first one.

    Norms behind the last block count as part of it; convolutions across slices are of no block.

    Raises:
        ConfigError: timm does not say of this network.
    """
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is None:
        raise ConfigError(
            f"timm lists no blocks of {type(backbone).__name__}; leave train.backbone_blocks at all and "
            "train.layer_decay at 1, or choose another model.backbone"
        )
    found = group_parameters(backbone, matcher(coarse=False), reverse=True)
    own = {name: int(found[name]) for name, _ in backbone.named_parameters() if not name.startswith("cross_slice.")}
    places = {number: place for place, number in enumerate(sorted(set(own.values())))}
    return {name: places[number] for name, number in own.items()}
