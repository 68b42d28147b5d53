"""Ray's workers: every result once and in order, whatever happens to the workers."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from keygap.errors import UserError
from keygap.workers import on_ray, workers_of
from keygap.workers.cluster import imported

from .on_ray import Task, killed_at_once, never_begins, ray_here


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Ray here, which leaves no handler of signals, no process and no file."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is made before temporary files move
    before = signal.getsignal(signal.SIGTERM)
    before_ray = psutil.Process().children(recursive=True)  # a browser of other tests, for one
    with (
        tempfile.TemporaryDirectory(prefix="keygap-", dir="/tmp") as short,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(tempfile, "tempdir", short)
        with ray_here() as found:
            assert signal.getsignal(signal.SIGTERM) == before
            assert len(list(Path(short).glob("keygap-*/session_latest"))) == 1
            yield found
            own = psutil.Process().children(recursive=True)
            children = [child for child in own if child not in before_ray]
            assert any("raylet" in child.name() for child in children)
        assert psutil.wait_procs(children, 20)[1] == []
        assert list(Path(short).iterdir()) == []
    assert not imported().is_initialized()


@pytest.fixture
def one(workers):
    """One worker of the same Ray: fewer processes to start."""
    with workers_of("ray", 1) as found:
        yield found


def squares(workers, task, numbers) -> list[int]:
    return list(workers.map(task.begin, numbers, "squares"))


def test_results_are_in_order_and_each_worker_prepares_once(workers, tmp_path):
    numbers = list(range(20))
    found = squares(workers, Task(tmp_path, slow=(7,), awaits=(0,)), numbers)
    assert found == [number**2 for number in numbers]
    assert len(list(tmp_path.glob("began-*"))) == 2


def test_a_connection_that_exists_is_used_and_stays(workers):
    with workers_of("ray", 1):
        pass
    assert imported().is_initialized()


def test_nothing_to_do_needs_no_worker(workers, tmp_path):
    assert squares(workers, Task(tmp_path), []) == []
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(workers, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "keygap"):
        found = squares(workers, Task(tmp_path, dies=(0, 5, 11)), range(12))
    assert found == [number**2 for number in range(12)]
    replaced = [line for line in caplog.messages if "died while it did item" in line]
    assert sorted(line.split("item ")[1].split(" ")[0] for line in replaced) == ["1", "12", "6"]
    assert all(line.startswith("squares: a worker died while") for line in replaced)


@pytest.mark.slow
def test_an_item_that_kills_every_worker_ends_the_work(one, tmp_path, monkeypatch):
    monkeypatch.setattr("keygap.workers.on_ray.MOST_DEATHS", 1)
    line = r"squares: a worker died 2 times in a row, the last while it did item 4: .*kept$"
    with pytest.raises(UserError, match=line) as error:
        squares(one, Task(tmp_path, always=(3,)), range(6))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_workers_that_cannot_prepare_end_the_work(one, monkeypatch, capfd):
    monkeypatch.setattr("keygap.workers.on_ray.MOST_DEATHS", 1)
    with pytest.raises(UserError, match=r"died 2 times in a row, the last while it prepared"):
        list(one.map(killed_at_once, range(3), "nothing"))
    assert capfd.readouterr() == ("", "")


def test_a_user_error_of_a_worker_is_that_error(one, tmp_path):
    with pytest.raises(UserError) as error:
        squares(one, Task(tmp_path, fails=(2,)), range(6))
    assert str(error.value) == "2 cannot be squared: give another"
    with pytest.raises(UserError) as error:
        list(one.map(never_begins, range(6), "nothing"))
    assert str(error.value) == "there is nothing here to begin with: install it"


def test_a_bug_in_a_worker_keeps_its_traceback(one, tmp_path):
    with pytest.raises(ZeroDivisionError, match="in square") as error:
        squares(one, Task(tmp_path, breaks=(4,)), range(6))
    assert not isinstance(error.value, UserError)


def test_what_cannot_be_sent_is_one_line(workers):
    lock = threading.Lock()

    def begin():
        return lock.acquire

    with pytest.raises(UserError, match=r"squares cannot be sent .*: use the engine local") as e:
        list(workers.map(begin, [1], "squares"))
    assert "\n" not in str(e.value)


def test_gpus_that_no_node_has_are_one_line(workers, tmp_path):
    with pytest.raises(
        UserError, match="a worker needs 64 GPUs and a CPU, and no node of the Ray cluster"
    ):
        list(workers.map(Task(tmp_path).begin, [1], "squares", gpus=64))


def test_workers_end_with_the_work_also_where_it_is_left(workers, tmp_path):
    results = workers.map(Task(tmp_path, slow=tuple(range(100))).begin, range(100), "squares")
    assert next(results) == 0
    results.close()
    begun = [int(path.name.removeprefix("began-")) for path in tmp_path.glob("began-*")]
    left = [psutil.Process(number) for number in begun if psutil.pid_exists(number)]
    assert psutil.wait_procs(left, 10)[1] == []


def connections_of(process: psutil.Process) -> list:
    """Its connections; none of a process that has ended since it was listed."""
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []


def test_ray_listens_on_the_loopback_interface_alone(workers):
    addresses = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_a_pool_whose_workers_did_not_all_start_can_be_stopped(workers):
    pool = on_ray._Pool(make=None, items=[], options={}, what="nothing")
    pool.places = [on_ray._Place()]
    pool.stop()
