"""Tests of finding versions and of selecting them by a policy."""

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
        ("٣", None),  # Python's `isdigit` accepts it.
        ("²", None),
        ("", None),
        ("unfinished-1", None),
    ],
)
def test_parse_version(name, version):
    assert parse_version(name) == version


@given(st.sets(st.integers(0, MAX_VERSION)), st.integers(0, 8))
def test_latest_selects_the_largest_versions(versions, count):
    selected = select_versions(versions, policy(f"latest {{ num_versions: {count} }}"))
    assert selected == sorted(selected, reverse=True)
    assert len(selected) == min(max(count, 1), len(versions))
    assert all(other < selected[-1] for other in versions - set(selected))


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_specific_and_all_versions(versions, named):
    specific = Policy(specific=Policy.Specific(versions=named))
    assert select_versions(versions, specific) == sorted(versions & named, reverse=True)
    assert select_versions(versions, ALL) == sorted(versions, reverse=True)


def test_the_default_policy_is_the_latest_version():
    assert select_versions([3, 1, 2], Policy()) == select_versions([3, 1, 2], LATEST) == [3]


def test_only_folders_named_by_a_number_are_versions(tmp_path):
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


def test_a_folder_without_leading_zeros_wins(tmp_path):
    for name in ("7", "07", "007"):
        (tmp_path / name).mkdir()
    found = aspired_versions(tmp_path, ALL)
    assert found.folders == {7: tmp_path / "7"}
    assert len(found.warnings) == 2
    assert all("is ignored" in warning for warning in found.warnings)


def test_a_missing_specific_version_is_a_warning(tmp_path):
    (tmp_path / "1").mkdir()
    found = aspired_versions(tmp_path, policy("specific { versions: 1 versions: 5 versions: 5 }"))
    assert found.folders == {1: tmp_path / "1"}
    assert found.warnings == [f"{tmp_path} has no version 5, which the version policy names"]


def test_an_unreadable_folder_has_no_versions(tmp_path):
    found = aspired_versions(tmp_path / "missing", LATEST)
    assert found.folders == {}
    assert found.warnings == [f"{tmp_path / 'missing'} cannot be read: {os.strerror(2)}"]
    (tmp_path / "file").write_text("")
    assert aspired_versions(tmp_path / "file", LATEST).folders == {}


@pytest.mark.parametrize(
    ("files", "base", "advice"),
    [
        ([], "m", "{tmp}/m: names of version folders must be numbers, such as 1; found no folder"),
        (["v1/saved_model.pb"], "m", "must be numbers, such as 1; found v1"),
        (["saved_model.pb"], "m", "{tmp}/m is itself a SavedModel; move its files into {tmp}/m/1"),
        (["17/saved_model.pb"], "m/17", "give the folder that contains it: {tmp}/m"),
        (["cats/1/saved_model.pb"], "m", "give one of them, such as {tmp}/m/cats"),
        (["1/saved_model.pb"], "m", None),
    ],
)
def test_a_wrong_base_path_is_explained(tmp_path, files, base, advice):
    (tmp_path / "m").mkdir()
    for file in files:
        path = tmp_path / "m" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    warnings = aspired_versions(tmp_path / base, LATEST).warnings
    if advice is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert advice.format(tmp=tmp_path) in warning
