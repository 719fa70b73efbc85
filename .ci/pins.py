"""Print the versions that are installed here of all that ichseq and its extras for use need, as constraints for pip.

    .ci/.venv/bin/python .ci/pins.py > constraints.txt

after `.ci/run` has passed: these versions then have passed every test together.
"""

import platform
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("decoders", "dicom", "onnx", "cluster", "imagenet")


def pins() -> dict[str, str]:
    """Version by name, of ichseq's requirements, of theirs, and so on."""
    found: dict[str, str] = {}
    todo = [("ichseq", frozenset(EXTRAS))]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # needed elsewhere: by another system or another Python
            continue
        found[name] = package.version
        for requirement in map(Requirement, package.requires or []):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                one = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if one not in seen:
                    seen.add(one)
                    todo.append(one)
    del found["ichseq"]
    return dict(sorted(found.items()))


if __name__ == "__main__":
    print(f"# Versions that passed every test together, on Python {platform.python_version()} and {platform.system()}:")
    print("# pip install -c constraints.txt 'ichseq[decoders,dicom,onnx,cluster]'. Made by .ci/pins.py.")
    for name, version in pins().items():
        print(f"{name}=={version.partition('+')[0]}")
