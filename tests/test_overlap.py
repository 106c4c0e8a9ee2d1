"""Batches under way: their order, their threads and their errors; and how many tiles a batch has."""

import threading
import time

import pytest
import torch

from genedml.encoders.encoder import Encoder, load_encoder
from genedml_cli.features import batch_size, overlap
from genedml_cli.features.batch_size import BATCH_TILES, choose_batch_tiles, find_batch_tiles
from genedml_cli.features.overlap import pipelined
from genedml_cli.machine.compute import all_deterministic

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def encoder_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("encoder")]


def test_results_keep_their_order_whichever_is_done_first(three_threads):
    together = threading.Barrier(3, timeout=20)

    def call(number: int) -> int:
        if number < 3:
            together.wait()  # passes only where three are under way
        time.sleep(0.02 * (3 - number % 3))
        return number

    calls = [lambda number=number: call(number) for number in range(9)]
    assert list(pipelined(calls, CPU)) == list(range(9))


def test_each_thread_counts_alone_and_the_caller_as_before(three_threads):
    seen = list(pipelined([torch.get_num_threads] * 6, CPU))
    assert seen == [1] * 6
    assert torch.get_num_threads() == 3


def test_threads_that_torch_is_left_later_are_those_that_encode(three_threads, monkeypatch):
    monkeypatch.setattr(overlap, "_cores", None)  # and afterwards
    overlap.encode_on(3)
    torch.set_num_threads(1)
    assert set(pipelined([lambda: time.sleep(0.02) or len(encoder_threads())] * 6, CPU)) == {1}
    overlap.encode_on(2)
    assert max(pipelined([lambda: time.sleep(0.02) or len(encoder_threads())] * 6, CPU)) == 2


def test_an_error_or_an_early_end_leaves_no_thread(three_threads):
    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        list(pipelined([fail, *[lambda: None] * 5], CPU))
    batches = pipelined([lambda: 1] * 50, CPU)
    assert next(batches) == 1
    batches.close()
    assert encoder_threads() == []
    assert torch.get_num_threads() == 3


def test_a_device_is_given_the_next_before_its_last_is_taken():
    made = []
    results = pipelined(
        [lambda number=number: made.append(number) or number for number in range(3)], torch.device("mps")
    )
    assert next(results) == 0
    assert made == [0, 1]
    assert list(results) == [1, 2]


def tiles_per_s(rates: dict[int, float]):
    """Speeds by batch; no memory for a batch that is not among them."""

    def measure(encoder: object, size: int) -> float:
        if size not in rates:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return rates[size]

    return measure


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({32: 100, 64: 190, 128: 300, 256: 310, 512: 900}, 128),
        ({32: 100, 64: 190}, 64),
        ({}, 32),
        (dict(zip((32, 64, 128, 256, 512, 1024, 2048), range(1, 8), strict=True)), 1024),
    ],
    ids=["little gained", "no memory", "no memory at all", "the largest"],
)
def test_a_batch_is_doubled_while_it_is_worth_it(rates, best, monkeypatch):
    monkeypatch.setattr(batch_size, "_tiles_per_s", tiles_per_s(rates))
    assert find_batch_tiles(load_encoder("tiny")) == best


def test_tiles_at_a_time_are_those_given_or_tried_once_or_fixed(monkeypatch):
    tried = []
    monkeypatch.setattr(batch_size, "find_batch_tiles", lambda encoder: tried.append(encoder) or 96)
    encoder = load_encoder("tiny")
    assert choose_batch_tiles(encoder) == BATCH_TILES["cpu"]
    encoder.batch_tiles = 5
    assert choose_batch_tiles(encoder) == 5
    assert tried == []
    on_cuda = load_encoder("tiny")
    monkeypatch.setattr(Encoder, "device", torch.device("cuda"))
    with all_deterministic(True):
        assert choose_batch_tiles(on_cuda) == BATCH_TILES["cuda"]
    assert [choose_batch_tiles(on_cuda) for _ in range(2)] == [96, 96]
    assert tried == [on_cuda]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_trial_on_cuda_finds_a_batch():
    assert find_batch_tiles(load_encoder("stain-texture", device="cuda")) >= batch_size.SMALLEST
