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
