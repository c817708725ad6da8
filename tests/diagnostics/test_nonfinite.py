import math

import pytest
import torch
from torch import nn

from saddlepoint.diagnostics import NonFiniteOrigin, find_nonfinite
from saddlepoint.models import MLP

NAN, INF = math.nan, math.inf


class Exp(nn.Module):
    """Overflows where its input is large: e^710 is beyond float64."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return torch.exp(self.factor * x)


class Root(nn.Module):
    """Finite at 0 with an infinite slope."""

    def forward(self, x):
        return x.square().sqrt()


def linear(inputs, outputs, generator):
    return next(
        m
        for m in MLP((inputs, outputs), generator=generator).double().modules()
        if isinstance(m, nn.Linear)
    )


class Gan:
    """Two linear layers each, with room for one module between them; the closure returns two terms
    for the discriminator."""

    def __init__(self, in_generator=None, in_discriminator=None):
        draws = torch.Generator().manual_seed(0)
        self.G = nn.Sequential(linear(2, 3, draws), in_generator or nn.Tanh(), linear(3, 2, draws))
        self.D = nn.Sequential(
            linear(2, 3, draws), in_discriminator or nn.Tanh(), linear(3, 1, draws)
        )
        self.networks = {"discriminator": self.D, "generator": self.G}
        self.real, self.noise = (
            torch.randn(5, 2, generator=draws, dtype=torch.float64) for _ in range(2)
        )

    def losses(self):
        fake = self.D(self.G(self.noise))
        terms = {
            "real": nn.functional.softplus(-self.D(self.real)).mean(),
            "fake": nn.functional.softplus(fake).mean(),
        }
        return {"discriminator": terms, "generator": nn.functional.softplus(-fake).mean()}

    def origin(self, closure=None, player="discriminator"):
        data = {"the real samples": self.real, "the generator's noise": self.noise}
        return find_nonfinite(self.networks, closure or self.losses, data, player=player)


class TestPlaces:
    def test_data(self):
        gan = Gan()
        gan.real[2, 1] = NAN
        found = gan.origin()
        assert (found.place, found.player, found.tensor, found.share) == (
            "data",
            "discriminator",
            "the real samples",
            0.1,
        )
        assert (
            found.description
            == "The first non-finite tensor is in the data: the real samples (10% of its entries"
            " are not finite)."
        )

    def test_noise(self):
        gan = Gan()
        gan.noise[:, 0] = -INF
        assert (
            gan.origin(player="generator").description
            == "The first non-finite tensor is in the data: the generator's noise (50% of its"
            " entries are not finite)."
        )

    @pytest.mark.parametrize("bad", [NAN, INF, -INF])
    def test_parameter(self, bad):
        gan = Gan()
        with torch.no_grad():
            gan.G[2].weight[1, 2] = bad
        found = gan.origin()
        # though the discriminator's loss was found bad
        assert (found.place, found.player) == ("parameter", "generator")
        assert (
            found.description
            == "The first non-finite tensor is a parameter: 2.weight, shape (2, 3) of the generator"
            " (17% of its entries are not finite)."
        )

    @pytest.mark.parametrize("player", ["generator", "discriminator"])
    def test_output_of_a_layer(self, player):
        gan = Gan(**{f"in_{player}": Exp(1e5)})
        found = gan.origin()
        first = gan.networks[player][0](
            gan.noise if player == "generator" else gan.G(gan.noise)
        ).detach()
        bad = ~torch.exp(1e5 * first).isfinite()
        assert 0 < bad.double().mean() < 1
        assert (found.place, found.player, found.tensor) == ("output", player, "1 (Exp)")
        assert found.share == pytest.approx(float(bad.double().mean()))
        assert found.largest == pytest.approx(float(first.abs().max()))
        assert (
            found.description
            == f"The first non-finite tensor is the output of 1 (Exp) of the {player}"
            f" ({found.share:.0%} of its entries are not finite, from values up to"
            f" {found.largest:.2g})."
        )

    def test_output_of_a_module_that_computes_after_its_layers(self):
        class Exponential(nn.Sequential):
            def forward(self, x):
                return super().forward(x).mul(1e5).exp()

        gan = Gan()
        gan.networks["generator"] = gan.G = Exponential(*gan.G)
        assert (gan.origin().player, gan.origin().tensor) == ("generator", "Exponential")

    @pytest.mark.parametrize("term", ["real", "fake"])
    def test_term_of_a_loss(self, term):
        gan = Gan()

        def losses():
            found = gan.losses()
            found["discriminator"][term] = found["discriminator"][term].log() * INF
            return found

        found = gan.origin(losses)
        assert (found.place, found.player, found.tensor) == (
            "loss",
            "discriminator",
            f'the term "{term}" of the loss',
        )
        assert (
            found.description
            == f'All layers are finite; the first non-finite number is the term "{term}" of the'
            " loss of the discriminator."
        )

    def test_whole_loss(self):
        gan = Gan()
        found = gan.origin(
            lambda: gan.losses() | {"generator": gan.losses()["generator"] * NAN},
            player="generator",
        )
        assert (
            found.description
            == "All layers are finite; the first non-finite number is the loss of the generator."
        )

    def test_gradient_on_its_way_through_the_layers(self):
        """√ has no finite slope at 0: the first non-finite gradient is that of its input."""
        gan = Gan(in_discriminator=Root())
        with torch.no_grad():
            gan.D[0].weight.zero_()
            gan.D[0].bias.zero_()
        assert all(math.isfinite(float(v.detach())) for v in gan.losses()["discriminator"].values())
        found = gan.origin()
        assert (found.place, found.player, found.tensor) == (
            "gradient",
            "discriminator",
            "the output of 0 (Linear)",
        )
        assert (
            found.description
            == "The losses are finite; the first non-finite tensor is a gradient: at the output of"
            " 0 (Linear) of the discriminator (100% of its entries are not finite)."
        )

    def test_gradient_of_a_parameter_alone(self):
        """A penalty √(Σ b²) at b = 0: every layer's gradient is finite."""
        gan = Gan()
        with torch.no_grad():
            gan.G[2].bias.zero_()
        found = gan.origin(
            lambda: (
                gan.losses()
                | {"generator": gan.losses()["generator"] + gan.G[2].bias.square().sum().sqrt()}
            )
        )
        assert (found.place, found.player, found.tensor, found.share) == (
            "gradient",
            "generator",
            "2.bias",
            1.0,
        )

    def test_gradient_only_for_the_player_that_moves(self):
        gan = Gan()
        with torch.no_grad():
            gan.G[2].bias.zero_()
        found = gan.origin(lambda: {"discriminator": gan.losses()["discriminator"]})
        assert found.place == "update"

    def test_update(self):
        """Everything is finite here: what overflowed was the step."""
        gan = Gan()
        largest = max(
            float(g.abs().max())
            for player, loss in (
                ("discriminator", sum(gan.losses()["discriminator"].values())),
                ("generator", gan.losses()["generator"]),
            )
            for g in torch.autograd.grad(loss, list(gan.networks[player].parameters()))
        )
        found = gan.origin(player="generator")
        assert (found.place, found.player, found.largest) == (
            "update",
            "generator",
            pytest.approx(largest),
        )
        assert math.isnan(found.share)
        assert (
            found.description
            == f"Losses and gradients are finite (up to {largest:.2g}); the generator's update"
            " overflows in the rule or in the inner optimizer."
        )

    def test_plain_containers(self):
        assert NonFiniteOrigin("data", "generator", "x", 0.5, NAN).to_dict() == {
            "place": "data",
            "player": "generator",
            "tensor": "x",
            "share": 0.5,
            "largest": pytest.approx(NAN, nan_ok=True),
            "description": (
                "The first non-finite tensor is in the data: x (50% of its entries are not finite)."
            ),
        }


class TestTheFirst:
    """One fault is planted after the other, from the end of the way to its start: each is named
    before those that follow from it."""

    def test_of_several(self):
        gan = Gan(in_generator=Exp(), in_discriminator=Exp())
        terms = gan.losses

        def bad_loss():
            return terms() | {"generator": terms()["generator"] * NAN}

        places = [gan.origin(bad_loss)]
        gan.D[1].factor = 1e5
        places.append(gan.origin(bad_loss))
        gan.G[1].factor = 1e5
        places.append(gan.origin(bad_loss))
        with torch.no_grad():
            gan.D[2].bias.fill_(NAN)
        places.append(gan.origin(bad_loss))
        gan.noise[0, 0] = NAN
        places.append(gan.origin(bad_loss))
        assert [(found.place, found.player) for found in places] == [
            ("loss", "generator"),
            ("output", "discriminator"),
            ("output", "generator"),
            ("parameter", "discriminator"),
            ("data", "discriminator"),
        ]

    def test_of_two_layers(self):
        network = nn.Sequential(Exp(1e5), nn.Identity(), Exp())
        x = torch.ones(3, 1, dtype=torch.float64)
        scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        network.scale = scale
        found = find_nonfinite(
            {"critic": network},
            lambda: {"critic": (network(x) * scale).mean()},
            {"x": x},
            player="critic",
        )
        assert (found.tensor, found.largest) == ("0 (Exp)", 1.0)


class TestNothingChanges:
    def networks(self):
        draws = torch.Generator().manual_seed(0)
        body = nn.Sequential(
            linear(2, 3, draws), nn.BatchNorm1d(3).double(), nn.Dropout(0.5), linear(3, 1, draws)
        )
        return {"critic": body}

    @pytest.mark.parametrize("place", ["data", "parameter", "output", "loss", "gradient", "update"])
    def test_networks_buffers_and_random_states(self, place):
        networks, x = (
            self.networks(),
            torch.randn(6, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
        )
        body = networks["critic"]
        if place == "data":
            x[0, 0] = NAN
        if place == "parameter":
            body[3].bias.data.fill_(INF)
        if place == "output":
            body.insert(2, Exp(1e5))  # after normalisation both signs occur
        factor = {"loss": NAN}.get(place, 1.0)

        def losses():
            y = body(x)
            return {
                "critic": (
                    ((y - y).square().sum().sqrt() if place == "gradient" else y.mean()) * factor
                )
            }

        before = {name: t.clone() for name, t in body.state_dict().items()}
        with torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            first = find_nonfinite(networks, losses, {"x": x}, player="critic")
            assert torch.equal(torch.get_rng_state(), state)
            second = find_nonfinite(networks, losses, {"x": x}, player="critic")
        assert first.place == place
        assert str(first) == str(second)  # the same dropout masks; NaN equals itself in text
        assert all(
            torch.equal(t.nan_to_num(7.0), before[name].nan_to_num(7.0))
            for name, t in body.state_dict().items()
        )
        assert body.training
        assert all(p.grad is None and not p._backward_hooks for p in body.parameters())
        assert not any(module._forward_hooks for module in body.modules())

    def test_a_module_that_returns_its_parameter_keeps_no_hook(self):
        class Point(nn.Module):
            def __init__(self):
                super().__init__()
                self.place = nn.Parameter(torch.ones(1, dtype=torch.float64))

            def forward(self, x):
                return self.place

        network = Point()
        found = find_nonfinite(
            {"generator": network},
            lambda: {"generator": network(None).square().sum()},
            {},
            player="generator",
        )
        assert (found.place, found.largest) == ("update", 2.0)
        assert not network.place._backward_hooks

    def test_hooks_go_even_where_the_closure_fails(self):
        gan = Gan()

        def losses():
            gan.G(gan.noise)
            raise RuntimeError("no losses today")

        with pytest.raises(RuntimeError, match="no losses today"):
            gan.origin(losses)
        assert not any(
            module._forward_hooks
            for network in gan.networks.values()
            for module in network.modules()
        )


class Many(nn.Module):
    """Returns what it is given in a container."""

    def __init__(self, container, factor=1.0):
        super().__init__()
        self.container, self.factor = container, factor
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x):
        y = torch.exp(self.factor * self.weight * x)
        return {
            "dict": {"logits": y, "none": None},
            "tuple": (x, y),
            "list": [y],
            "nested": (x, (y, [y])),
            "none": None,
        }[self.container]


def unpacked(output):
    while not isinstance(output, torch.Tensor):
        output = output["logits"] if isinstance(output, dict) else output[-1]
    return output


class TestContainers:
    @pytest.mark.parametrize("container", ["dict", "tuple", "list", "nested"])
    def test_they_do_not_break_and_nothing_is_overlooked(self, container):
        network, x = Many(container), torch.ones(3, 1, dtype=torch.float64)

        def origin():
            closure = lambda: {"critic": unpacked(network(x)).mean()}  # noqa: E731
            return find_nonfinite({"critic": network}, closure, {"x": x}, player="critic")

        assert origin().place == "update"
        network.factor = 1e5
        assert origin().place == ("output" if container in ("tuple", "list") else "loss")

    def test_whole_numbers_are_finite(self):
        network = nn.Embedding(4, 1, _weight=torch.full((4, 1), 2.0, dtype=torch.float64))
        index = torch.tensor([0, 3])
        found = find_nonfinite(
            {"critic": network},
            lambda: {"critic": network(index).sum()},
            {"index": index},
            player="critic",
        )
        assert (found.place, found.largest) == ("update", 1.0)
