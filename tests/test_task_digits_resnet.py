"""Tests of the residual and dense networks on digits, and of ResNet-50 on a folder laid out as ImageNet is."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from stepsize import sweep
from stepsize.tasks import TASKS
from stepsize.tasks import digits_resnet_full as full
from torch import nn
from torch.nn import functional as F

RESNET, DENSENET, MLP = TASKS["digits-resnet"], TASKS["digits-densenet"], TASKS["digits-mlp"]
each_small = pytest.mark.parametrize("task", [RESNET, DENSENET], ids=lambda task: task.name)


class Layers(nn.Module):
    """Batch norm, ReLU and convolution, so often; ``shapes`` are (inputs, outputs, kernel, stride)."""

    def __init__(self, shapes, join):
        super().__init__()
        self.join, self.count = join, len(shapes)
        for i, (inputs, outputs, k, stride) in enumerate(shapes, 1):
            self.add_module(f"norm{i}", nn.BatchNorm2d(inputs, momentum=None))
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, k, stride, padding=k // 2, bias=False))
        if join == "add" and shapes[0][0] != shapes[-1][1]:
            stride = max(stride for *_, stride in shapes)
            self.shortcut = nn.Conv2d(shapes[0][0], shapes[-1][1], 1, stride, bias=False)

    def forward(self, x):
        new = x
        for i in range(1, self.count + 1):
            active = torch.relu(self.get_submodule(f"norm{i}")(new))
            if i == 1 and hasattr(self, "shortcut"):
                x = self.shortcut(active)
            new = self.get_submodule(f"conv{i}")(active)
            if self.join == "cat":
                x = new = torch.cat([x, new], dim=1)
        return x + new if self.join == "add" else x


class Reference(nn.Module):
    """The whole network, with the module names of our parameters."""

    def __init__(self, stem, blocks, channels, classes):
        super().__init__()
        self.stem, self.names = stem, list(blocks)
        for name, block in blocks.items():
            self.add_module(name, block)
        self.norm, self.output = nn.BatchNorm2d(channels, momentum=None), nn.Linear(channels, classes)

    def forward(self, x):
        x = self.stem(x)
        for name in self.names:
            x = self.get_submodule(name)(x)
        return self.output(torch.relu(self.norm(x)).mean((2, 3)))

    def take(self, params):
        """Our parameters into these modules, none left over and none lacking."""
        names = {"scale": "weight", "shift": "bias"}
        for key, p in params.items():
            module, _, name = key.rpartition(".")
            module = module.replace(".block", "_block").replace("transition.norm", "transition.0")
            module = {"stem": self.first(), "transition": "transition.2"}.get(module, module)
            self.get_submodule(module).get_parameter(names.get(name, name)).data.copy_(p)
        assert sum(p.numel() for p in params.values()) == sum(p.numel() for p in self.parameters())
        return self

    def first(self):
        return "stem.0" if isinstance(self.stem, nn.Sequential) else "stem"


def resnet():
    shapes = [(8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2)]
    blocks = {f"block{i}": Layers([(a, b, 3, s), (b, b, 3, 1)], "add") for i, (a, b, s) in enumerate(shapes, 1)}
    return Reference(nn.Conv2d(1, 8, 3, padding=1, bias=False), blocks, 32, 10)


def densenet():
    one, two = ([(c + 8 * i, 8, 3, 1) for i in range(3)] for c in (8, 16))
    half = [nn.BatchNorm2d(32, momentum=None), nn.ReLU(), nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2)]
    blocks = {"block1": Layers(one, "cat"), "transition": nn.Sequential(*half), "block2": Layers(two, "cat")}
    return Reference(nn.Conv2d(1, 8, 3, padding=1, bias=False), blocks, 40, 10)


def resnet50(classes):
    blocks, channels = {}, 64
    for stage, (count, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], 1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            shapes = [(channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
            blocks[f"stage{stage}_block{block}"] = Layers(shapes, "add")
            channels = 4 * width
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.MaxPool2d(3, 2, padding=1))
    return Reference(stem, blocks, channels, classes)


def shaken(params):
    """Off the start, where scales of one and shifts of zero would hide a mistake."""
    random = torch.Generator().manual_seed(0)
    return {name: p + 0.1 * torch.randn(p.shape, generator=random) for name, p in params.items()}


@pytest.mark.parametrize(
    ("task", "model"), [(RESNET, resnet), (DENSENET, densenet)], ids=lambda x: getattr(x, "name", "")
)
class TestAgainstTorch:
    def test_loss_and_gradient_are_those_of_torch_nn(self, task, model):
        params = shaken(task.init(0))
        (places,) = next(task.batches(0))
        x, y = task.data["train"][0][places].double(), task.data["train"][1][places]
        leaves = {name: p.double().requires_grad_() for name, p in params.items()}
        reference = model().double().take(leaves)
        expected = F.cross_entropy(reference(x.view(-1, 1, 8, 8)), y)
        assert task.loss(params, (places,)).item() == pytest.approx(expected.item(), rel=1e-5)
        expected.backward()
        F.cross_entropy(task.forward(leaves, x), y).backward()
        for ours, theirs in (("stem.weight", reference.stem.weight), ("norm.shift", reference.norm.bias)):
            torch.testing.assert_close(leaves[ours].grad, theirs.grad)

    def test_evaluation_has_the_exact_statistics_of_the_training_images(self, task, model):
        params = shaken(task.init(0))
        reference = model().take(params).double()
        parts = {part: (x.double().view(-1, 1, 8, 8), y) for part, (x, y) in task.data.items()}
        with torch.no_grad():
            for module in reference.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.register_forward_hook(biased)
            reference.train()(parts["train"][0])
            logits = {part: reference.eval()(x) for part, (x, _) in parts.items()}
        measured = task.evaluate(params)
        for part, (_, y) in parts.items():
            assert measured[f"{part}_error"].item() == pytest.approx(
                (logits[part].argmax(1) != y).double().mean().item()
            )
            if part != "test":
                assert measured[f"{part}_loss"].item() == pytest.approx(
                    F.cross_entropy(logits[part], y).item(), rel=1e-5
                )


def biased(module, inputs, _):
    """After training mode: torch keeps the unbiased variance, and divides by the biased one."""
    if module.training:
        n = inputs[0].numel() // len(module.running_var)
        module.running_var *= (n - 1) / n


@each_small
class TestSmallNetworks:
    def test_data_are_those_of_digits_mlp(self, task):
        for part, tensors in MLP.data.items():
            assert all(torch.equal(x, y) for x, y in zip(tensors, task.data[part], strict=True))

    def test_epoch_shows_no_image_twice(self, task):
        epoch = torch.cat([places for (places,) in itertools.islice(task.batches(0), 16)])
        assert len(epoch) == len(epoch.unique()) == 16 * 64

    def test_one_tensor_is_a_bias(self, task):
        assert [name for name in task.init(0) if name.endswith("bias")] == ["output.bias"]

    def test_image_is_judged_alone(self, task):
        """Other images of its part do not move its logits."""
        params, known = shaken(task.init(0)), {}
        task.forward(params, task.data["train"][0], known)
        x = task.data["test"][0]
        torch.testing.assert_close(task.forward(params, x, known)[:3], task.forward(params, x[:3], known))


def test_residual_network_has_nine_kernels_of_three_by_three():
    shapes = [tuple(p.shape) for p in RESNET.init(0).values() if p.shape[-2:] == (3, 3)]
    assert shapes == [
        (8, 1, 3, 3),
        *[(8, 8, 3, 3)] * 2,
        (16, 8, 3, 3),
        *[(16, 16, 3, 3)] * 3,
        (32, 16, 3, 3),
        (32, 32, 3, 3),
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Four images to train and two to validate, of two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 2), ("val", 1)):
        for name in ("n01440764", "n01443537"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.fromarray(random.integers(0, 256, (240, 320, 3), dtype=np.uint8))
                image.save(tmp_path / part / name / f"{name}_{i}.JPEG")
    monkeypatch.setenv(full.VARIABLE, str(tmp_path))
    monkeypatch.setitem(TASKS, "digits-resnet@full", full.ResNet50())
    return tmp_path


class TestFullSize:
    @pytest.mark.slow
    def test_two_steps_of_a_sweep_train_it(self, folder):
        """At 224 x 224, with the rate and the other settings of OpenSeq2Seq."""
        settings = {"lr": 0.03, "betas": (0.95, 0.98), "weight_decay": 4e-3}
        runs = sweep(
            "digits-resnet@full", {"novograd": settings}, seeds=1, steps=2, device="cpu", progress=False, workers=1
        )
        losses = runs.curves("train_loss")
        assert losses["step"].tolist() == [0, 1, 2]
        assert np.isfinite(losses["value"]).all() and losses["value"].nunique() == 3
        assert set(runs.curves("val_error")["value"]) <= {0, 0.5, 1}

    def test_network_is_the_one_of_torch_nn_with_25_million_parameters(self, folder):
        params = TASKS["digits-resnet@full"].init(0)
        assert sum(p.numel() for p in params.values()) + 998 * 2049 == 25_549_352
        params = {name: p.double() for name, p in shaken(params).items()}
        reference = resnet50(2).double().take(params)
        x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(full.forward(params, x), reference(x))

    def test_run_has_the_steps_of_a_hundred_epochs(self):
        assert TASKS["digits-resnet@full"].steps == 1_000_911

    def test_classes_are_numbered_in_the_order_of_the_training_folders(self, folder):
        task = TASKS["digits-resnet@full"]
        assert [number for _, number in task.files["train"]] == [0, 0, 1, 1]
        assert [number for _, number in task.files["val"]] == [0, 1]
        assert task.init(0)["output.bias"].shape == (2,)

    def test_batch_is_cropped_and_mirrored_as_its_seed_says(self, folder):
        task = TASKS["digits-resnet@full"]
        places, draws = next(task.batches(0))
        assert sorted(places.tolist()) == [0, 1, 2, 3]
        once, again, other = (
            full.read(task.files["train"], d.tolist())[0] for d in (draws, draws, next(task.batches(1))[1])
        )
        assert once.shape == (4, 3, 224, 224)
        assert torch.equal(once, again) and not torch.equal(once, other)

    def test_evaluated_picture_is_the_middle_of_256_and_a_mirrored_one_is_reversed(self, tmp_path):
        ramp = np.broadcast_to(np.arange(512)[None, :, None] // 2, (256, 512, 3)).astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / "ramp.JPEG", quality=100)
        middle = full.picture(tmp_path / "ramp.JPEG", None)
        assert np.abs(middle.astype(int) - ramp[16:240, 144:368]).max() <= 2
        numbers = [0.5] * 4 * full.ATTEMPTS
        left, right = (full.picture(tmp_path / "ramp.JPEG", [*numbers, side]) for side in (0.9, 0.1))
        assert left[0, 0, 0] < left[0, -1, 0]
        assert np.array_equal(left, right[:, ::-1])

    def test_pixels_are_normalised_as_usual(self, tmp_path):
        Image.new("L", (300, 300), 128).save(tmp_path / "grey.JPEG")
        x, y = full.read([(tmp_path / "grey.JPEG", 7)])
        expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(x[0, :, 100, 100], expected, rtol=0, atol=0.02)
        assert y.tolist() == [7]

    def test_random_crop_lies_in_the_image_with_the_promised_area_and_shape(self):
        random = np.random.default_rng(0)
        areas = []
        for _ in range(300):
            left, top, right, bottom = full.random_box(500, 375, random.random(4 * full.ATTEMPTS).tolist())
            assert 0 <= left < right <= 500 and 0 <= top < bottom <= 375
            assert 0.74 < (right - left) / (bottom - top) < 1.35
            areas.append((right - left) * (bottom - top) / (500 * 375))
        assert 0.075 < min(areas) < 0.12 and max(areas) > 0.85

    def test_image_too_narrow_for_any_crop_gives_its_central_square(self):
        assert full.random_box(1000, 10, [0.9] * 40) == (495, 0, 505, 10)

    def test_missing_data_get_one_sentence(self, folder, monkeypatch):
        task = TASKS["digits-resnet@full"]
        assert task.missing() is None and RESNET.missing() is None
        for path in (folder / "val").glob("*/*"):
            path.unlink()
        assert task.missing().endswith("without val/CLASS/*.JPEG")
        monkeypatch.delenv(full.VARIABLE)
        with pytest.raises(ValueError, match="STEPSIZE_IMAGENET must name a folder of ImageNet with train/CLASS"):
            sweep("digits-resnet@full", {"sgd": {}}, seeds=1, steps=1, progress=False)

    def test_class_to_validate_without_training_images_is_refused(self, folder):
        (folder / "val" / "n01443537").rename(folder / "val" / "n09999999")
        with pytest.raises(ValueError, match="'n09999999' in val alone"):
            TASKS["digits-resnet@full"].init(0)
