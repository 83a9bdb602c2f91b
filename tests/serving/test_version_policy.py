"""Which folders are versions, and which of them a policy wants."""

import os

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from serving.version_policy import (
    MAX_VERSION,
    Policy,
    aspired_versions,
    parse_version,
    select_versions,
)


def policy(text: str) -> Policy:
    return text_format.Parse(text, Policy())


LATEST, ALL = policy("latest {}"), policy("all {}")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("0", 0),
        ("7", 7),
        ("00000123", 123),
        ("1699999999", 1699999999),
        ("9223372036854775807", MAX_VERSION),
        ("9223372036854775808", None),
        ("9" * 200, None),
        ("-1", None),
        ("+1", None),
        ("1.0", None),
        ("1_000", None),
        (" 1", None),
        ("1\n", None),
        ("0x10", None),
        ("٣", None),  # A digit to Python.
        ("²", None),
        ("", None),
        ("unfinished-1", None),
    ],
)
def test_numbers_are_versions(name, version):
    assert parse_version(name) == version


@given(st.sets(st.integers(0, MAX_VERSION)), st.integers(0, 8))
def test_the_latest_are_the_largest(versions, count):
    chosen = select_versions(versions, policy(f"latest {{ num_versions: {count} }}"))
    assert chosen == sorted(chosen, reverse=True)
    assert len(chosen) == min(max(count, 1), len(versions))
    assert all(other < chosen[-1] for other in versions - set(chosen))


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_specific_and_all_versions(versions, named):
    specific = Policy(specific=Policy.Specific(versions=named))
    assert select_versions(versions, specific) == sorted(versions & named, reverse=True)
    assert select_versions(versions, ALL) == sorted(versions, reverse=True)


def test_without_a_policy_it_is_the_latest():
    assert select_versions([3, 1, 2], Policy()) == select_versions([3, 1, 2], LATEST) == [3]


def test_only_folders_with_numbers_count(tmp_path):
    for name in ("1", "0012", "unfinished-99", "v13", "-5"):
        (tmp_path / name).mkdir()
    (tmp_path / "100").write_text("a file")
    (tmp_path / "7").symlink_to(tmp_path / "v13", target_is_directory=True)
    (tmp_path / "8").symlink_to(tmp_path / "nowhere")
    found = aspired_versions(tmp_path, ALL)
    assert list(found.folders.items()) == [
        (12, tmp_path / "0012"),
        (7, tmp_path / "7"),
        (1, tmp_path / "1"),
    ]
    assert found.warnings == []
    assert list(aspired_versions(tmp_path, LATEST).folders) == [12]


def test_of_two_folders_with_a_number_the_plain_one_counts(tmp_path):
    for name in ("7", "07", "007"):
        (tmp_path / name).mkdir()
    found = aspired_versions(tmp_path, ALL)
    assert found.folders == {7: tmp_path / "7"}
    assert len(found.warnings) == 2
    assert all("is ignored" in warning for warning in found.warnings)


def test_what_a_policy_names_and_is_not_there_is_said(tmp_path):
    (tmp_path / "1").mkdir()
    found = aspired_versions(tmp_path, policy("specific { versions: 1 versions: 5 versions: 5 }"))
    assert found.folders == {1: tmp_path / "1"}
    assert found.warnings == [f"{tmp_path} has no version 5, which the version policy names"]


def test_a_folder_that_cannot_be_read_has_no_versions(tmp_path):
    found = aspired_versions(tmp_path / "missing", LATEST)
    assert found.folders == {}
    assert found.warnings == [f"{tmp_path / 'missing'} cannot be read: {os.strerror(2)}"]
    (tmp_path / "file").write_text("")
    assert aspired_versions(tmp_path / "file", LATEST).folders == {}
