import torch

from saddlepoint.training import Trainer
from saddlepoint.training.rng import RngState


def draw(randomness):
    with randomness.scope():
        return torch.rand(1).item()


def test_decided_by_the_seed_and_carried_on():
    cpu = torch.device("cpu")
    a, b = RngState(0, cpu), RngState(0, cpu)
    first = [draw(a), draw(a)]
    assert first == [draw(b), draw(b)]
    assert first[0] != first[1]
    b.load_state_dict(a.state_dict())
    assert draw(a) == draw(b)
    assert draw(RngState(1, cpu)) != first[0]


def test_dropout_in_a_run_reproduces(harness):
    def trained():
        training = Trainer(harness.small())
        training.networks["discriminator"].layers.append(torch.nn.Dropout(0.5))
        for _ in range(3):
            training.train_step()
        return [p.detach().clone() for p in training.networks["discriminator"].parameters()]

    assert all(torch.equal(p, q) for p, q in zip(trained(), trained(), strict=True))
