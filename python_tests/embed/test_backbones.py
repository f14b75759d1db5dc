"""Networks by name: their own preprocessing, features instead of classes, and weights that fit or are refused."""

from __future__ import annotations

import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from deepclust_ext.data.decode import decode
from deepclust_ext.embed import Preprocessing, load_backbone, networks
from deepclust_ext.embed.weights import fit_weights, read_weights

# A family each, and how wide its features are.
WIDTHS = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v3_small": 1024,
    "resnet18": 512,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "vgg11": 4096,
    "vit_b_16": 768,
}


@pytest.mark.parametrize("name", WIDTHS)
def test_torchvision_networks_without_their_classes(name):
    size = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        found = networks.of_torchvision(name, "random", name)
        features = found.net.eval()(torch.empty(2, 3, size, size))
    assert features.shape == (2, WIDTHS[name])
    assert found.preprocessing.square.size == size


def photo(width, height, seed=0):
    """Smooth colours, with an edge."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    picture = np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    picture[:, : width // 3] //= 2
    return Image.fromarray(picture)


def same_input(preprocessing, transform, picture):
    """Within two levels of 255, and nearly everywhere the same: we cut first, and then scale."""
    ours = preprocessing.batch(torch.from_numpy(decode(picture, preprocessing.square).pixels.copy())[None])[0]
    apart = (ours - transform(picture)).abs() * torch.tensor(preprocessing.std)[:, None, None] * 255
    assert apart.max() < 2.01
    assert (apart > 0.5).float().mean() < 0.03


@pytest.mark.parametrize("size", [(300, 400), (401, 257), (90, 70), (3000, 260)])
@pytest.mark.parametrize(
    "weights", ["ResNet18_Weights", "ResNet50_Weights", "ViT_B_16_Weights", "EfficientNet_B1_Weights"]
)
def test_torchvisions_own_preprocessing(size, weights):
    transforms = getattr(models, weights).DEFAULT.transforms()
    same_input(Preprocessing.of_torchvision(transforms, weights), transforms, photo(*size))


@pytest.mark.parametrize("size", [(300, 401), (257, 90)])
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("share", [0.875, 1.0])
def test_timms_own_preprocessing(size, mode, share):
    timm_data = pytest.importorskip("timm.data")
    config = {
        "input_size": (3, 96, 96),
        "interpolation": "bicubic",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "crop_pct": share,
        "crop_mode": mode,
    }
    same_input(Preprocessing.of_timm(config, "x"), timm_data.create_transform(**config), photo(*size))


def test_another_size_keeps_the_share_of_the_picture():
    assert Preprocessing().at(112).square.resize == 128


def test_a_timm_network(tmp_path):
    timm = pytest.importorskip("timm")
    plain = load_backbone("timm:test_resnet", weights="random", device="cpu")
    assert plain.dim() == plain.net.num_features
    whole = timm.create_model("test_resnet")
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(whole.state_dict(), tmp_path / "a.safetensors")
    found = load_backbone("test_resnet", weights=tmp_path / "a.safetensors", device="cpu", image_size=64)
    assert found.preprocessing.square.size == 64
    images = torch.rand(2, 3, 64, 64)
    expected = whole.eval().forward_head(whole.forward_features(images), pre_logits=True)
    assert torch.allclose(found.features(images), expected, atol=1e-5)
    assert found.identity != plain.identity
    # Built for one size of images: the weights' positions are turned to another.
    vit = timm.create_model("test_vit")
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    load_backbone("test_vit", weights=tmp_path / "vit.pth", device="cpu", image_size=96)
    torch.save({name: value for name, value in whole.state_dict().items() if "layer2" not in name}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"tensors of the network's .* are not in it, such as 'layer2"):
        load_backbone("test_resnet", weights=tmp_path / "b.pth", device="cpu")


# Weights


def net(layers=1, classes=0):
    """Two layers or more; the head is called `head`."""
    parts = {"stem": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4)}
    parts |= {f"layer{number}": nn.Linear(4, 4) for number in range(layers)}
    return nn.ModuleDict(parts | ({"head": nn.Linear(4, classes)} if classes else {}))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {f"module.backbone.{name}": value for name, value in state.items()}},
        lambda state: {"student": net().state_dict(), "teacher": {f"backbone.{n}": v for n, v in state.items()}},
        lambda state: {f"encoder_q.{n}": v for n, v in state.items()} | {"queue": torch.zeros(3)},
        lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
    ],
)
def test_weights_in_whatever_a_training_script_puts_them(tmp_path, wrap):
    source, target = net(2, classes=5), net(2)
    torch.save(wrap(source.state_dict()), tmp_path / "a.pth")
    fit_weights(target, read_weights(tmp_path / "a.pth"), head="head", where="a.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (net(1), "2 tensors of the network's 11 are not in it, such as 'layer1.weight'"),
        (net(3), "2 tensors have no place in the network, such as 'layer2.weight'"),
        (
            nn.ModuleDict(dict(net(2).items()) | {"stem": nn.Conv2d(1, 4, 3)}),
            "1 tensor has another shape, such as 'st",
        ),
        (nn.Linear(2, 2), "10 tensors of the network's 11 are not in it"),
    ],
)
def test_weights_of_another_network_are_refused_and_change_nothing(other, message):
    target = net(2)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"'weights' must be those of this network, got 'a.pth', where ") as caught:
        fit_weights(target, other.state_dict(), head="head", where="a.pth")
    assert message in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize("content", ["pickle", "text", "empty", "numbers"])
def test_files_that_hold_no_weights_are_refused_and_never_run(tmp_path, capfd, content):
    path = tmp_path / "a.pth"
    if content == "pickle":
        torch.save({"a": Evil()}, path)
    elif content == "numbers":
        torch.save({"a": 1}, path)
    else:
        path.write_text("no weights" if content == "text" else "")
    with pytest.raises(ValueError, match="'weights' must"):
        read_weights(path)
    assert capfd.readouterr().out == ""


def test_torchvision_weights_from_a_file_with_other_classes(tmp_path):
    source = models.resnet18(num_classes=7)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    found = load_backbone("resnet18", weights=tmp_path / "a.pth", device="cpu")
    source.fc = nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    assert torch.allclose(found.features(images), source.eval()(images), atol=1e-5)
    assert found.net.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(parameter.requires_grad for parameter in found.net.parameters())


def no_network(*_, **__):
    raise urllib.error.URLError("Name or service not known")


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet18", {}, OSError, "the weights of 'resnet18' cannot be downloaded .*give weights=FILE"),
        (
            "resnet18",
            {"weights": "IMAGENET1K_V9"},
            ValueError,
            "'weights' must be a file, 'random' or, of resnet18, one",
        ),
        ("resnet18", {"weights": "no/such.pth"}, FileNotFoundError, "must be a file that is there, got 'no/such.pth'"),
        (
            "no_such_network",
            {"weights": "random"},
            ValueError,
            "must be a network of torchvision or of timm, got 'no_",
        ),
        ("torchvision:fcn_resnet50", {}, ValueError, "must be a network of torchvision for classification"),
        ("support.toynets:nothing", {}, ValueError, "must be module:callable that can be imported"),
        ("support.toynets:no_network", {}, ValueError, "must return a torch.nn.Module, got str"),
        ("support.toynets:maps", {}, ValueError, "must be a floating-point tensor of shape"),
        ("support.toynets:tiny", {"image_size": 9}, ValueError, "must embed images of 3 x 9 x 9"),
        ("support.toynets:tiny", {"weights": "best"}, FileNotFoundError, "must be a file that is there, got 'best'"),
    ],
)
def test_backbones_that_cannot_be_had(monkeypatch, name, options, error, message):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(error, match=message):
        load_backbone(name, device="cpu", **options)


def test_a_module_in_the_working_directory(tmp_path, monkeypatch):
    source = "from torch import nn\ndef net():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    (tmp_path / "here_alone.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert load_backbone("here_alone:net", device="cpu").dim() == 3
