import torch

from saddlepoint.curvature.replay import Replay


def test_later_evaluations_draw_the_same_numbers_and_leave_the_stream_alone():
    own = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        replay = Replay(generators=[own])
        first = torch.rand(2), torch.rand(2, generator=own)
        with replay.again():
            again = torch.rand(2), torch.rand(2, generator=own)
        further = torch.rand(2), torch.rand(2, generator=own)
        torch.manual_seed(0)
        expected = torch.rand(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.cat([first[0], further[0]]), expected)
    assert not torch.equal(first[1], further[1])


def test_buffers_move_once_per_step():
    norm = torch.nn.BatchNorm1d(1, momentum=0.5)
    x = torch.tensor([[0.0], [2.0]])
    replay = Replay([norm])
    norm(x)
    for _ in range(3):
        with replay.again():
            norm(x)
    assert norm.running_mean.item() == 0.5
    assert norm.num_batches_tracked.item() == 1


def test_the_graph_of_a_repeated_evaluation_survives_its_end():
    """BatchNorm's graph holds the running statistics, so nothing may be written into them
    afterwards."""
    for track in (1, 2):  # also where the module runs twice, as a discriminator does
        norm = torch.nn.BatchNorm2d(2)
        x = torch.arange(16.0).view(2, 2, 2, 2)
        replay = Replay([norm])
        first = sum(norm(x + k).square().sum() for k in range(track))
        with replay.again():
            second = sum(norm(x + k).square().sum() for k in range(track))
        for loss in (second, first):
            assert all(
                bool(g.isfinite().all()) for g in torch.autograd.grad(loss, list(norm.parameters()))
            )
        assert int(norm.num_batches_tracked) == track


def test_a_buffer_that_is_exchanged_inside_is_restored():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return x * self.count

    module = torch.nn.Sequential(Counting())
    replay = Replay([module])
    assert float(module(torch.ones(()))) == 1
    with replay.again():
        assert float(module(torch.ones(()))) == 1
    assert float(module[0].count) == 1
