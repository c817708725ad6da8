import sys
import types

import pytest
import torch

import saddlepoint as sp
from saddlepoint.metrics import fidelity_scores, weights_hash

FOUND = {
    "frechet_inception_distance": 12.5,
    "kernel_inception_distance_mean": 0.25,
    "inception_score_mean": 3.0,
}


def images(n=20, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def calls(monkeypatch):
    """Put a stand-in where torch-fidelity would be and return the options it is called with."""
    recorded = []

    def calculate_metrics(**options):
        recorded.append(options)
        torch.rand(3)  # as the real one, which draws initial weights from the global generator
        return FOUND

    module = types.ModuleType("torch_fidelity")
    module.calculate_metrics = calculate_metrics
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    return recorded


@pytest.fixture
def weights(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "inception.pth")
    return tmp_path / "inception.pth"


class TestDelegation:
    def test_values_and_what_they_were_measured_on(self, calls):
        found = fidelity_scores(images(20), images(30), kid_subset_size=10)
        assert {name: measure.value for name, measure in found.items()} == {
            "fid": 12.5,
            "kid": 0.25,
            "is": 3.0,
        }
        assert (found["fid"].generated, found["fid"].real, found["fid"].split) == (20, 30, "test")
        assert found["is"].real == 0  # no real image enters it
        assert found["fid"].extractor == "inception-v3-compat"
        assert "299" in found["kid"].resize
        assert found["fid"].replicate is None

    def test_options(self, calls, weights):
        fidelity_scores(images(20), images(30), weights=weights, seed=7, kid_subset_size=15)
        (options,) = calls
        assert (options["fid"], options["kid"], options["isc"]) == (True, True, True)
        assert options["feature_extractor_weights_path"] == str(weights)
        assert (options["rng_seed"], options["kid_subset_size"], options["cuda"]) == (7, 15, False)
        assert options["cache"] is False
        assert (len(options["input1"]), len(options["input2"])) == (20, 30)

    def test_images_become_bytes(self, calls):
        x = torch.linspace(-1, 1, 256).repeat(20, 3, 8, 1)
        fidelity_scores(x, (images() + 1).mul(127).to(torch.uint8), kid_subset_size=10)
        first = calls[0]["input1"][0]
        assert first.dtype == torch.uint8
        assert first[0, 0].tolist() == list(range(256))
        assert torch.equal(calls[0]["input2"][3], (images() + 1).mul(127).to(torch.uint8)[3])

    def test_hash(self, weights):
        assert len(weights_hash(weights)) == 64


class TestRefusals:
    def test_greyscale(self):
        with pytest.raises(
            sp.UsageError, match=r"defined on colour images, but the real images have 1 channel"
        ):
            fidelity_scores(images(), torch.zeros(20, 1, 28, 28))

    @pytest.mark.parametrize("wrong", [images() * 2, images() * torch.nan, images().long()])
    def test_range(self, wrong):
        with pytest.raises(sp.UsageError, match=r"generated images in \[-1, 1\] or uint8"):
            fidelity_scores(wrong, images())

    def test_shape(self):
        with pytest.raises(sp.UsageError, match=r"shape \(N, 3, H, W\), got \(20, 192\)"):
            fidelity_scores(images().flatten(1), images())

    def test_too_few(self):
        with pytest.raises(sp.UsageError, match="at least 1000 generated images, got 20"):
            fidelity_scores(images(), images())

    def test_weights_that_are_no_weights(self, calls, tmp_path):
        (tmp_path / "bad.pth").write_bytes(b"no weights")
        with pytest.raises(sp.UsageError, match="not a file of plain InceptionV3 weights"):
            fidelity_scores(images(), images(), weights=tmp_path / "bad.pth", kid_subset_size=10)
        assert not calls

    @pytest.mark.parametrize(
        "error",
        [
            ModuleNotFoundError("no torch_fidelity"),
            RuntimeError("operator torchvision::nms does not exist"),
        ],
    )
    def test_a_library_that_cannot_be_imported(self, monkeypatch, error):
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == "torch_fidelity":
                    raise error

        monkeypatch.delitem(sys.modules, "torch_fidelity", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
        with pytest.raises(sp.UsageError, match=r"pip install 'saddlepoint\[fidelity\]'") as raised:
            fidelity_scores(images(), images(), kid_subset_size=10)
        assert str(error) in str(raised.value)

    def test_weights_that_cannot_be_downloaded(self, calls, monkeypatch):
        def offline(**options):
            raise OSError("no route to host")

        monkeypatch.setattr(sys.modules["torch_fidelity"], "calculate_metrics", offline)
        with pytest.raises(sp.UsageError, match=r"no route to host.*weights="):
            fidelity_scores(images(), images(), kid_subset_size=10)


def random_inception(path, monkeypatch):
    """Write InceptionV3 weights at random: enough to see that the delegation works."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with monkeypatch.context() as patched, torch.random.fork_rng():
        torch.manual_seed(0)
        patched.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(
            module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None
        )
        network = module.FeatureExtractorInceptionV3("random", ["2048"])
        for weight in (p for p in network.parameters() if p.ndim == 4):
            # torch's default would leave nothing of the images after fifty layers
            torch.nn.init.kaiming_normal_(weight)
        torch.save(network.state_dict(), path)


def test_the_library_itself(tmp_path, monkeypatch):
    try:
        import torch_fidelity  # noqa: F401
    except Exception as error:
        pytest.skip(f"torch-fidelity cannot be imported here: {error}")
    random_inception(tmp_path / "random.pth", monkeypatch)
    same, other = (
        fidelity_scores(images(10), x, weights=tmp_path / "random.pth", kid_subset_size=10)
        for x in (images(10), images(10).abs() * 0.3)
    )
    assert abs(same["fid"].value) < 1e-6 * other["fid"].value
    assert same["kid"].value < other["kid"].value
    assert same["is"].value == other["is"].value >= 1
