"""Which rank a launcher's environment says we are, and where ranks meet."""

import threading

import pytest

from ffb.configuration import sites
from ffb.service import meeting
from ffb.service.ranks import Rank, rank_of


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank()),
        (
            {
                "OMPI_COMM_WORLD_RANK": "2",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
                "PMIX_NAMESPACE": "prterun-vm-1@1",
                "SLURM_PROCID": "0",
                "SLURM_STEP_NUM_TASKS": "1",
            },
            Rank(2, 4, True, "prterun-vm-1@1"),
        ),
        (
            {"PMI_RANK": "0", "PMI_SIZE": "240", "MPI_LOCALNRANKS": "120"},
            Rank(0, 240, False, ""),
        ),
        (
            {
                "SLURM_PROCID": "7",
                "SLURM_STEP_NUM_TASKS": "8",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_JOB_ID": "11",
                "SLURM_STEP_ID": "0",
            },
            Rank(7, 8, False, "11.0"),
        ),
        # a batch script that no srun has started is no rank, though Slurm says so
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "11"}, Rank()),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, Rank(0, 1, True, "")),
    ],
)
def test_a_rank_by_its_launcher(environment, rank):
    assert rank_of(environment) == rank


@pytest.mark.parametrize(("number", "of"), [("4", "4"), ("-1", "4"), ("x", "4"), ("0", "")])
def test_a_rank_that_cannot_be_is_refused(number, of):
    told = f"PMI_RANK={number} and PMI_SIZE={of}: not a rank of that many"
    with pytest.raises(ValueError, match=told):
        rank_of({"PMI_RANK": number, "PMI_SIZE": of})


FAR = Rank(0, 2, False, "launch")


def test_followers_find_who_leads_and_the_key_and_nothing_is_left(tmp_path):
    file = tmp_path / "folder" / "x_Run0001.h5"
    found = []
    follower = threading.Thread(
        target=lambda: found.append(meeting.meet(file, FAR._replace(number=1), 60, lambda: False))
    )
    follower.start()
    with meeting.sockets() as near, meeting.held(file) as folder:
        where = meeting.place(folder, near, FAR)
        assert folder.stat().st_mode & 0o777 == 0o700
        meeting.invite(folder, FAR, "tcp://0.0.0.0:1234")
        follower.join(60)
        (there,) = found
        assert there.address.startswith("tcp://")
        assert there.address.endswith(":1234")
        assert there.public_key == where.public_key
        assert there.secret_key == ""
    assert [*file.parent.iterdir()] == []
    assert not near.exists()


def test_what_a_killed_rank_left_and_another_launch_are_not_followed(tmp_path):
    file, near = tmp_path / "x_Run0001.h5", Rank(0, 2, True, "mine")
    with meeting.held(file) as folder:
        meeting.invite(folder, near._replace(launch="another"), "ipc://elsewhere")
        with pytest.raises(TimeoutError, match="rank 1: rank 0 did not come to"):
            meeting.meet(file, near._replace(number=1), 0.1, lambda: False)
    folder.mkdir(mode=0o700)
    (folder / "lock").touch()
    meeting.invite(folder, near, "ipc://of the dead")
    with pytest.raises(TimeoutError):
        meeting.meet(file, near._replace(number=1), 0.1, lambda: False)
    with meeting.held(file):
        assert not (folder / "told").exists()


def test_two_launches_do_not_make_one_file(tmp_path, monkeypatch):
    file = tmp_path / "x_Run0001.h5"
    monkeypatch.setattr(meeting, "HELD_S", 0.0)
    with (
        meeting.held(file),
        pytest.raises(BlockingIOError, match="another launch makes"),
        meeting.held(file),
    ):
        pass


def test_files_are_looked_for_where_facilities_keep_them(tmp_path, monkeypatch):
    there = sites.Site("/s/{hutch}", str(tmp_path / "{hutch}/{exp}/xtc"))
    monkeypatch.setattr(sites, "SITES", {"nowhere": sites.Site("/x", "/x/{exp}"), "here": there})
    with pytest.raises(
        FileNotFoundError, match=r"no xtc2 files of mfxx1 run 7 in /x/mfxx1, .*--dir"
    ):
        sites.find_xtc("mfxx1", "mfx", 7)
    folder = tmp_path / "mfx/mfxx1/xtc"
    folder.mkdir(parents=True)
    (folder / "mfxx1-r0007-s000-c000.xtc2").touch()
    assert sites.find_xtc("mfxx1", "mfx", 7) == folder
    with pytest.raises(FileNotFoundError):
        sites.find_xtc("mfxx1", "mfx", 8)
