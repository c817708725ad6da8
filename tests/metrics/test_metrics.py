import math

import pytest
import torch

import saddlepoint as sp
from saddlepoint.data import load_digits, load_mnist, ring
from saddlepoint.metrics import (
    class_coverage,
    digit_cnn_hash,
    frechet_distance,
    load_digit_cnn,
    mmd2,
    mode_coverage,
)
from saddlepoint.metrics.digit_cnn import WEIGHTS


def normal(n, d, seed, scale=1.0, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, d, generator=g, dtype=torch.float64)


def accuracy(data):
    found = torch.cat([load_digit_cnn()(images).argmax(1) for images in data.images.split(1000)])
    return (found == data.labels).double().mean().item()


class TestFrechet:
    def test_closed_form_of_gaussians(self):
        """Between N(0, I) and N(m, s²I): ‖m‖² + d(1 − s)²."""
        a, b = normal(200_000, 3, 0), normal(200_000, 3, 1, scale=2.0, shift=0.5)
        assert frechet_distance(a, b) == pytest.approx(3 * 0.25 + 3 * 1.0, rel=0.01)

    def test_dense_formula(self):
        a, b = normal(60, 4, 0), normal(50, 4, 1, scale=0.3)
        Sa, Sb = torch.cov(a.T), torch.cov(b.T)
        values, Q = torch.linalg.eigh(Sa)
        root = Q @ torch.diag(values.sqrt()) @ Q.T
        cross = torch.linalg.eigvalsh(root @ Sb @ root).sqrt().sum()
        expected = (a.mean(0) - b.mean(0)).square().sum() + Sa.trace() + Sb.trace() - 2 * cross
        assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-9)

    def test_zero_for_the_same_set(self):
        a = normal(100, 8, 0)
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)

    def test_degenerate_features_give_a_number(self):
        """A collapsed generator has a singular covariance."""
        a = normal(100, 8, 0)
        assert math.isfinite(frechet_distance(a, torch.zeros(100, 8, dtype=torch.float64)))

    def test_too_few_samples(self):
        with pytest.raises(
            sp.UsageError, match=r"Fréchet distance needs at least 9 generated samples, got 8"
        ):
            frechet_distance(normal(20, 8, 0), normal(8, 8, 1))

    def test_non_finite_features(self):
        with pytest.raises(sp.UsageError, match="a feature of the generated samples is not finite"):
            frechet_distance(normal(20, 2, 0), torch.full((20, 2), math.nan))


class TestKernel:
    def test_dense_formula(self):
        a, b = normal(120, 3, 0), normal(120, 3, 1, shift=1.0)
        k = lambda x, y: (x @ y.T / 3 + 1) ** 3  # noqa: E731
        off = lambda K: (K.sum() - K.diagonal().sum()) / (120 * 119)  # noqa: E731
        expected = off(k(a, a)) + off(k(b, b)) - 2 * k(a, b).mean()
        assert mmd2(a, b) == pytest.approx(float(expected), rel=1e-9)

    def test_deterministic_and_without_the_global_generator(self):
        a, b = normal(300, 3, 0), normal(200, 3, 1)
        assert mmd2(a, b) == mmd2(a, b)

    def test_too_few_samples(self):
        with pytest.raises(sp.UsageError, match="MMD² needs at least 100 real samples, got 99"):
            mmd2(normal(99, 2, 0), normal(100, 2, 1))


class TestCoverage:
    def test_modes_and_quality_of_the_data_itself(self):
        mixture = ring()
        modes, quality = mode_coverage(
            mixture.sample(20_000, torch.Generator().manual_seed(0)), mixture.centres, mixture.sigma
        )
        assert modes == 8
        # a planar Gaussian within 3σ
        assert quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)

    def test_a_collapsed_generator_has_one_mode(self):
        mixture = ring()
        assert mode_coverage(mixture.centres[3].repeat(500, 1), mixture.centres, mixture.sigma) == (
            1,
            1.0,
        )

    def test_points_between_modes_are_of_low_quality(self):
        assert mode_coverage(torch.zeros(500, 2), ring().centres, 0.02) == (0, 0.0)

    def test_classes(self):
        logits = torch.eye(10)[torch.arange(990) % 9]
        assert class_coverage(logits) == 0.9
        few = torch.cat([logits, torch.eye(10)[[9] * 9]])  # below one per cent
        assert class_coverage(few) == 0.9

    def test_too_few_samples(self):
        with pytest.raises(sp.UsageError, match="Mode coverage needs at least 160 samples, got 10"):
            mode_coverage(torch.zeros(10, 2), ring().centres, 0.02)
        with pytest.raises(
            sp.UsageError, match="Class coverage needs at least 100 samples, got 10"
        ):
            class_coverage(torch.zeros(10, 10))


class TestDigitCnn:
    def test_weights_are_small_and_hashed(self):
        assert WEIGHTS.stat().st_size <= 1_000_000
        assert len(digit_cnn_hash()) == 64
        assert sum(p.numel() for p in load_digit_cnn().parameters()) == 88_170

    def test_accuracy_on_the_embedded_test_images(self):
        assert accuracy(load_digits()[1]) >= 0.985

    @pytest.mark.slow
    def test_accuracy_on_the_full_test_set(self, mnist_directory):
        assert accuracy(load_mnist(mnist_directory)[1]) >= 0.99

    def test_real_digits_are_nearer_than_noise(self):
        train, test = (load_digit_cnn().features(part.images[:500]) for part in load_digits())
        noise = load_digit_cnn().features(
            torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
        )
        assert frechet_distance(test, train) < 0.1 * frechet_distance(test, noise)
