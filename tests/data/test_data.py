import contextlib
import gzip
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.data import BatchOrder, generator_for, grid, load_digits, load_mnist, ring
from saddlepoint.data.idx import read_idx, write_idx
from saddlepoint.data.images import EMBEDDED


class TestIdx:
    def test_round_trip_plain_and_gzipped(self, tmp_path):
        array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        packed, plain = tmp_path / "a.gz", tmp_path / "a"
        write_idx(packed, array)
        plain.write_bytes(gzip.decompress(packed.read_bytes()))
        for path in (packed, plain):
            np.testing.assert_array_equal(read_idx(path), array)

    def test_the_bytes_do_not_depend_on_the_time(self, tmp_path):
        array = np.ones((2, 2), np.uint8)
        write_idx(tmp_path / "a.gz", array)
        write_idx(tmp_path / "b.gz", array)
        assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()

    def test_refuses_other_types(self, tmp_path):
        with pytest.raises(sp.UsageError, match="written from uint8 arrays, not float64"):
            write_idx(tmp_path / "a.gz", np.ones(3))

    @given(st.binary(max_size=64))
    def test_any_bytes_give_an_array_or_a_sentence(self, content):
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "a.gz"):
                path = Path(folder) / name
                path.write_bytes(content)
                with contextlib.suppress(sp.UsageError):
                    assert read_idx(path).dtype == np.uint8

    @pytest.mark.parametrize(
        ("damage", "text"),
        [
            (lambda raw: raw[:-1], "holds 11 bytes of data where its header announces 12"),
            (lambda raw: b"\1" + raw[1:], "is not an IDX file of unsigned bytes"),
            (lambda raw: raw[:6], "is truncated inside its IDX header"),
            (
                lambda raw: raw[:4] + b"\xff\xff\xff\xff" * 2 + raw[12:],
                "announces 18,446,744,065,119,617,025 bytes in 2 dimensions",
            ),
        ],
    )
    def test_damaged_files(self, tmp_path, damage, text):
        write_idx(tmp_path / "a.gz", np.zeros((3, 4), np.uint8))
        (tmp_path / "a").write_bytes(damage(gzip.decompress((tmp_path / "a.gz").read_bytes())))
        with pytest.raises(sp.UsageError, match=text):
            read_idx(tmp_path / "a")

    def test_truncated_gzip(self, tmp_path):
        path = tmp_path / "a.gz"
        write_idx(path, np.zeros((30, 40), np.uint8))
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(sp.UsageError, match="is damaged: Compressed file ended"):
            read_idx(path)


class TestDigits:
    def test_the_embedded_digits(self):
        train, test = load_digits()
        assert train.labels.bincount().tolist() == [1000] * 10
        assert test.labels.bincount().tolist() == [200] * 10
        for part in (train, test):
            assert part.images.shape[1:] == (1, 28, 28)
            assert part.images.dtype == torch.float32
            assert (part.images.min().item(), part.images.max().item()) == (-1.0, 1.0)

    def test_they_take_at_most_three_megabytes(self):
        assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 3_000_000

    def test_they_are_real_mnist_and_held_out_stays_held_out(self, mnist_directory):
        train, test = load_mnist(mnist_directory)
        assert (len(train), len(test)) == (60_000, 10_000)
        for embedded, full in zip(load_digits(), (train, test), strict=True):
            known = {image.numpy().tobytes() for image in full.images}
            assert all(image.numpy().tobytes() in known for image in embedded.images)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(
            sp.UsageError,
            match=r"has neither train-images-idx3-ubyte\.gz nor train-images-idx3-ubyte",
        ):
            load_mnist(tmp_path)

    def test_wrong_shapes(self, tmp_path):
        for prefix in ("train", "t10k"):
            write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", np.zeros((5, 14, 14), np.uint8))
            write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.zeros(5, np.uint8))
        with pytest.raises(sp.UsageError, match="expected images of 28 x 28"):
            load_mnist(tmp_path)

    def test_labels_of_another_set(self, tmp_path):
        for prefix in ("train", "t10k"):
            write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", np.zeros((5, 28, 28), np.uint8))
            write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.zeros(6, np.uint8))
        with pytest.raises(sp.UsageError, match="5 images come with 6 labels"):
            load_mnist(tmp_path)


class TestMixtures:
    def test_the_ring_has_eight_distinct_modes_at_its_radius(self):
        mixture = ring(8, radius=1.5)
        distances = torch.cdist(mixture.centres, mixture.centres) + 9 * torch.eye(8)
        torch.testing.assert_close(
            distances.min(dim=1).values, torch.full((8,), 2 * 1.5 * math.sin(math.pi / 8))
        )
        torch.testing.assert_close(mixture.centres.norm(dim=1), torch.full((8,), 1.5))

    def test_the_grid(self):
        centres = grid().centres
        assert len(centres.unique(dim=0)) == 25
        assert (centres.min().item(), centres.max().item()) == (-4.0, 4.0)

    def test_samples_have_the_mixture_s_moments(self):
        mixture = ring(8, radius=2.0, sigma=0.1)
        samples = mixture.sample(40_000, generator_for(0, "test"))
        nearest = torch.cdist(samples, mixture.centres).argmin(1)
        assert nearest.bincount().min() > 4500
        residual = samples - mixture.centres[nearest]
        assert residual.std().item() == pytest.approx(0.1, rel=0.02)

    def test_sigma_must_be_positive(self):
        with pytest.raises(sp.UsageError, match=r"needs sigma > 0, not 0\.0"):
            ring(sigma=0.0)


class TestOrder:
    @given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5))
    def test_every_sample_once_per_epoch(self, size, batch, seed):
        order = BatchOrder(size, batch, seed)
        epochs = 3
        steps = -(-epochs * size // batch)
        seen = torch.cat([order.indices(step) for step in range(steps)])
        for epoch in range(epochs):
            assert sorted(seen[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))

    @given(st.integers(1, 20), st.integers(1, 30), st.lists(st.integers(0, 50), max_size=8))
    def test_a_batch_is_a_function_of_its_step_alone(self, size, batch, steps):
        asked = BatchOrder(size, batch, 1)
        for step in steps:
            assert torch.equal(asked.indices(step), BatchOrder(size, batch, 1).indices(step))

    def test_streams_and_seeds_differ(self):
        draws = {
            torch.rand(1, generator=generator_for(seed, name, step)).item()
            for seed in (0, 1)
            for name in "ab"
            for step in (0, 1)
        }
        assert len(draws) == 8
