"""Who may read what, and which files are believed."""

import os
from pathlib import Path

import msgspec
import pytest

from parallelz import Client
from parallelz.errors import ConnectionFileError
from parallelz.protocol.connection import ConnectionInfo, Heartbeat
from parallelz.settings import connection_file, make_profile_dir
from parallelz.transport.peer import endpoint_for
from parallelz.transport.router import Router
from parallelz.transport.security import (
    ClusterSecrets,
    new_secrets,
    read_connection_file,
    read_secrets,
    write_secrets,
)
from parallelz.transport.sockets import term_context


@pytest.fixture
def secrets(tmp_path: Path) -> ClusterSecrets:
    return new_secrets("", runtime_dir=tmp_path, ip="127.0.0.1")


@pytest.fixture
def file(secrets: ClusterSecrets, tmp_path: Path) -> Path:
    make_profile_dir(tmp_path)
    write_secrets(secrets, tmp_path)
    return connection_file(tmp_path, "", "client")


def test_only_its_owner_can_read_what_is_written(file: Path, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write_secrets(read_secrets(tmp_path, ""), tmp_path)
    finally:
        os.umask(umask)
    security = tmp_path / "security"
    assert security.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in security.iterdir()} == {0o600}
    assert len(list(security.iterdir())) == 3


def test_a_directory_of_secrets_that_is_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "security").mkdir(mode=0o755)
    make_profile_dir(tmp_path)
    assert (tmp_path / "security").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_can_open_is_refused_with_what_to_do(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConnectionFileError, match=f"chmod 600 {file}"):
        read_connection_file(file, "client")
    with pytest.raises(ConnectionFileError, match="chmod 600"):
        Client(file, timeout=0.1)


def test_a_controller_refuses_secrets_that_others_can_open(file: Path, tmp_path: Path) -> None:
    connection_file(tmp_path, "", "controller").chmod(0o644)
    with pytest.raises(ConnectionFileError, match="chmod 600"):
        read_secrets(tmp_path, "")


def test_a_link_is_followed_and_what_it_points_to_is_looked_at(file: Path) -> None:
    link = file.with_name("link.json")
    link.symlink_to(file)
    assert read_connection_file(link, "client").role == "client"
    file.chmod(0o644)
    with pytest.raises(ConnectionFileError, match="chmod 600"):
        read_connection_file(link, "client")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 12345, -1)
    with pytest.raises(ConnectionFileError, match=r"another user \(uid 12345\)"):
        read_connection_file(file, "client")


def test_a_file_for_another_role_is_refused_with_the_name_of_the_right_one(
    file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConnectionFileError, match=r"for clients; .* ends with -engine\.json"):
        read_connection_file(file, "engine")
    of_engines = connection_file(tmp_path, "", "engine")
    with pytest.raises(ConnectionFileError, match=r"for engines; .* ends with -client\.json"):
        Client(of_engines, timeout=0.1)
    with pytest.raises(ConnectionFileError, match=r"for engines; .* ends with -client\.json"):
        Client(ConnectionInfo.decode(of_engines.read_bytes()), timeout=0.1)


def test_errors_about_a_file_name_it_and_tell_no_secret(file: Path) -> None:
    token = ConnectionInfo.decode(file.read_bytes()).token
    file.write_bytes(file.read_bytes().replace(b'"version": 1', b'"version": 2'))
    with pytest.raises(ConnectionFileError, match=str(file)) as caught:
        read_connection_file(file, "client")
    assert token not in str(caught.value)


def test_no_role_is_told_the_secrets_of_another(secrets: ClusterSecrets, file: Path) -> None:
    content = file.read_text()
    for role in ("engine", "recorder"):
        assert secrets.infos[role].token not in content
        assert secrets.infos[role].secret_key not in content
    assert secrets.server_secret_key not in content


def test_each_start_makes_new_keys(secrets: ClusterSecrets, tmp_path: Path) -> None:
    later = new_secrets("", runtime_dir=tmp_path, ip="127.0.0.1")
    assert later.server_secret_key != secrets.server_secret_key
    for role, info in secrets.infos.items():
        assert later.infos[role].token != info.token
        assert later.infos[role].secret_key != info.secret_key


def test_nothing_listens_beyond_this_host_unless_asked_to(tmp_path: Path) -> None:
    usual = new_secrets("", runtime_dir=tmp_path)
    assert all(url.startswith(("ipc://", "tcp://127.0.0.1:")) for url in usual.bind_urls)
    assert all(i.server_key or not i.tcp_urls for i in usual.infos.values()), "never plain"


def test_a_file_of_the_controller_that_was_changed_is_refused(
    file: Path, tmp_path: Path
) -> None:
    path = connection_file(tmp_path, "", "controller")
    path.write_bytes(msgspec.json.encode({"cluster_id": 1}))
    with pytest.raises(ConnectionFileError, match="was changed"):
        read_secrets(tmp_path, "")


def test_all_connections_have_the_heartbeat_that_the_files_say(tmp_path: Path) -> None:
    heartbeat = Heartbeat(period_s=3.0, timeout_s=9.0)
    secrets = new_secrets("", runtime_dir=tmp_path, ip="127.0.0.1", heartbeat=heartbeat)
    assert {info.heartbeat for info in secrets.infos.values()} == {heartbeat}
    router = Router(secrets)
    info = secrets.infos["engine"]
    here, elsewhere = info, msgspec.structs.replace(info, host_id="another")
    try:
        for each in (here, elsewhere):
            assert endpoint_for(each).heartbeat == heartbeat
        assert (router.socket.heartbeat_ivl, router.socket.heartbeat_timeout) == (3000, 9000)
    finally:
        router.close(0)
        term_context()
