"""The agent as a process, against a scripted server over real HTTP."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.devices.agent.device_process import (
    CRASHING_PROGRAM,
    GOOD_PROGRAM,
    REPOSITORY,
    DeviceProcess,
    is_alive,
    program,
    sha256,
)
from tests.devices.agent.protocol_server import (
    Signer,
    serving,
    write_keys,
)
from tests.waiting import wait_until

SLEEP_FOR_EVER = "\ntime.sleep(600)\n"
WAY = ["downloading", "verifying", "installing", "rebooting", "confirming"]
SILENT_PROGRAM = """\
import time
time.sleep(60)
# version VERSION
"""


def order_and_wait(
    device: DeviceProcess, image: bytes, version: str, **order: Any
) -> dict[str, Any]:
    """Order an image and give the claim or the failure."""
    update_id = device.server.order(device.device_id, image, version, **order)
    return device.server.wait_for(update_id, "confirming", "failed")


# The good way


def test_good_update_is_claimed_in_a_new_boot(device: DeviceProcess) -> None:
    image = program("2.0.0")
    device.start()
    first_beat = wait_until(lambda: device.server.heartbeats, what="a heartbeat")[0]
    wait_until(device.executed, what="the factory program")

    claim = order_and_wait(device, image, "2.0.0")

    assert device.server.statuses(claim["updateId"]) == WAY
    assert claim["bootId"] != first_beat["bootId"]
    assert claim["firmwareVersion"] == "2.0.0"
    assert claim["firmwareChecksum"] == sha256(image)
    assert set(claim["durations"]) == {"download", "verify", "install", "selfTest"}
    sequences = [
        each["sequence"] for each in device.server.reports_of(claim["updateId"])
    ]
    assert sequences == sorted(set(sequences))
    beat = device.server.wait_for_heartbeat(
        lambda each: each["bootId"] == claim["bootId"]
    )
    assert beat["firmwareChecksum"] == sha256(image)
    assert device.executed() == [sha256(device.factory), sha256(image)]


def test_first_heartbeat_comes_before_the_first_poll(device: DeviceProcess) -> None:
    device.start()
    wait_until(
        lambda: any(each.path.endswith("/update") for each in device.server.requests),
        what="a poll",
    )

    paths = [each.path.rpartition("/")[2] for each in device.server.requests]

    assert paths[:3] == ["device-token", "health", "update"]


def test_heartbeat_reports_what_was_measured(device: DeviceProcess) -> None:
    device.start()
    beat = device.server.wait_for_heartbeat(
        lambda each: "sensorReadings" in each["applicationMetrics"]
    )

    assert beat["firmwareChecksum"] == sha256(device.factory)
    assert 0 < beat["memoryUsage"] < 100
    assert 0 <= beat["cpuUsage"] <= 100
    assert beat["uptime"] >= 0
    assert beat["secureBoot"] == "unknown"
    assert beat["applicationMetrics"]["errorRate"] == 0
    assert beat["applicationMetrics"]["applicationRunning"] == 1


def test_program_that_hangs_is_reported_as_failing(device: DeviceProcess) -> None:
    hanging = GOOD_PROGRAM.replace("while True:", "while count < 3:") + SLEEP_FOR_EVER
    device.factory = program("1.0.0", source=hanging)
    device.limits["stale_metrics_seconds"] = 0.5
    device.provision()
    device.start()

    beat = device.server.wait_for_heartbeat(
        lambda each: each["applicationMetrics"].get("errorRate") == 1.0
    )

    assert beat["applicationMetrics"]["applicationRunning"] == 1
    assert beat["applicationMetrics"]["metricsAgeSeconds"] > 0.5


def test_update_without_reboot_is_claimed_in_the_same_boot(
    device: DeviceProcess,
) -> None:
    device.start()
    first_beat = wait_until(lambda: device.server.heartbeats, what="a heartbeat")[0]

    claim = order_and_wait(device, program("2.0.0"), "2.0.0", reboot_required=False)

    assert claim["bootId"] == first_beat["bootId"]
    assert device.server.statuses(claim["updateId"]) == [
        "downloading",
        "verifying",
        "installing",
        "confirming",
    ]


def test_rollback_uses_the_image_kept_in_the_other_slot(device: DeviceProcess) -> None:
    first, second = program("2.0.0"), program("3.0.0")
    device.start()
    order_and_wait(device, first, "2.0.0")
    order_and_wait(device, second, "3.0.0")
    downloads = len(device.server.downloads())

    claim = order_and_wait(device, first, "2.0.0", action="rollback")

    assert claim["firmwareChecksum"] == sha256(first)
    assert device.server.statuses(claim["updateId"]) == WAY[1:]
    assert len(device.server.downloads()) == downloads
    assert device.current_sha256() == sha256(first)


def test_rollback_to_the_running_image_is_claimed_at_once(
    device: DeviceProcess,
) -> None:
    device.start()
    installed = order_and_wait(device, program("2.0.0"), "2.0.0")

    claim = order_and_wait(device, program("2.0.0"), "2.0.0", action="rollback")

    assert device.server.statuses(claim["updateId"]) == ["confirming"]
    assert claim["bootId"] == installed["bootId"]


def test_order_for_the_running_image_is_proved_by_a_reboot(
    device: DeviceProcess,
) -> None:
    device.start()
    installed = order_and_wait(device, program("2.0.0"), "2.0.0")

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert claim["status"] == "confirming"
    assert claim["bootId"] != installed["bootId"]
    # The factory image may have been replaced before it came to write its line.
    assert device.executed().count(sha256(program("2.0.0"))) == 2


def test_once_works_off_one_order_and_exits(device: DeviceProcess) -> None:
    update_id = device.server.order("device-1", program("2.0.0"), "2.0.0")

    code = device.start("--once").wait(180)

    assert code == 0
    assert device.server.last(update_id, "confirming")


def test_once_tells_a_failed_order_by_its_exit_code(device: DeviceProcess) -> None:
    device.server.order("device-1", program("2.0.0"), "2.0.0", model="other")

    assert device.start("--once").wait(180) == 3


# Downloads


def test_cut_download_resumes_where_it_ended(device: DeviceProcess) -> None:
    image = program("2.0.0", size_bytes=60_000)
    device.limits["chunk_bytes"] = 100_000
    device.provision()
    device.server.faults.cut_download_at = 30_000
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert claim["status"] == "confirming"
    first, second = device.server.downloads()
    assert first.headers["Range"] == "bytes=0-59999"
    assert second.headers["Range"] == "bytes=30000-59999"
    assert second.headers["If-Range"] == f'"{sha256(image)}"'


def test_killed_during_the_download_it_resumes(device: DeviceProcess) -> None:
    image = program("2.0.0", size_bytes=60_000)
    device.server.faults.block_delay_seconds = 0.05
    update_id = device.server.order("device-1", image, "2.0.0")
    device.start()
    part = device.data / "downloads" / f"{sha256(image)}.part"
    wait_until(
        lambda: part.exists() and part.stat().st_size > 20_000, what="half a download"
    )

    device.kill()
    held_bytes = part.stat().st_size
    before = len(device.server.downloads())
    device.server.faults.block_delay_seconds = 0
    device.start()
    device.server.wait_for(update_id, "confirming")

    resumed = device.server.downloads()[before]
    assert resumed.headers["Range"].startswith(f"bytes={held_bytes}-")


def test_heartbeats_go_on_during_a_slow_download(device: DeviceProcess) -> None:
    device.limits["chunk_bytes"] = 100_000
    device.provision()
    device.server.faults.block_bytes = 1000
    device.server.faults.block_delay_seconds = 0.05
    device.start()

    claim = order_and_wait(device, program("2.0.0", size_bytes=40_000), "2.0.0")

    reports = device.server.reports_of(claim["updateId"])
    progress = [each.get("progressPercentage", 0) for each in reports]
    assert any(0 < percent < 100 for percent in progress)
    requests = list(device.server.requests)
    begin = next(each.at for each in requests if each.path.endswith("/download"))
    end = next(
        each.at
        for each in requests
        if each.body is not None and each.body.get("status") == "verifying"
    )
    beats = [
        each
        for each in requests
        if each.path.endswith("/health") and begin < each.at < end
    ]
    assert len(beats) >= 3


def test_server_without_ranges_is_good_enough(device: DeviceProcess) -> None:
    device.server.faults.ignore_ranges = True
    device.server.faults.cut_download_at = 9_000
    device.start()

    assert order_and_wait(device, program("2.0.0"), "2.0.0")["status"] == "confirming"


def test_flipped_byte_is_fetched_again(device: DeviceProcess) -> None:
    device.server.faults.flip_downloads = 1
    device.start()

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert claim["status"] == "confirming"
    assert device.server.statuses(claim["updateId"]).count("verifying") == 2


def test_byte_flipped_every_time_is_refused(device: DeviceProcess) -> None:
    device.server.faults.flip_downloads = 1000
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "checksum_mismatch"
    assert device.server.statuses(report["updateId"]).count("verifying") == 3
    assert "installing" not in device.server.statuses(report["updateId"])
    # The agent may have been quicker than its program.
    wait_until(device.executed, what="the start of the factory image")
    assert set(device.executed()) == {sha256(device.factory)}


def test_image_of_another_size_is_refused(device: DeviceProcess) -> None:
    image = program("2.0.0")
    device.start()

    report = order_and_wait(
        device,
        image,
        "2.0.0",
        manifest_changes={"size": len(image) - 1},
        firmware_changes={"size": len(image) - 1},
    )

    assert report["errorCode"] == "size_mismatch"


def test_refused_download_fails_the_update(device: DeviceProcess) -> None:
    device.server.faults.refuse_with["/download"] = [400] * 50
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "download_failed"


def test_download_that_waits_says_for_what(device: DeviceProcess) -> None:
    device.server.faults.refuse_with["/download"] = [503]
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["status"] == "confirming"
    assert '"download interrupted"' in device.log()
    assert '"HTTP 503' in device.log()


def test_no_credentials_follow_a_redirect_to_another_host(
    device: DeviceProcess,
) -> None:
    with serving(device.server.signer) as elsewhere:
        # "localhost" is another host than 127.0.0.1 as far as credentials go.
        port = elsewhere.url.rpartition(":")[2]
        device.server.faults.redirect_downloads_to = f"http://localhost:{port}"
        device.start()
        report = order_and_wait(device, program("2.0.0"), "2.0.0")

        redirected = elsewhere.downloads()

    assert redirected
    assert all("Authorization" not in each.headers for each in redirected)
    assert report["errorCode"] == "path_unauthorized"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("http://[", "download_failed"),
        ("http://updates.example/x", "path_foreign_host"),
        ("file:///etc/passwd", "download_failed"),
    ],
)
def test_download_address_that_is_not_allowed_fails_the_update(
    device: DeviceProcess, address: str, code: str
) -> None:
    device.start()

    report = order_and_wait(
        device, program("2.0.0"), "2.0.0", firmware_changes={"downloadUrl": address}
    )

    assert report["errorCode"] == code


# Refusals


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"model": "other-model"}, "wrong_model"),
        ({"manifest_changes": {"type": "recipe"}}, "manifest_refused"),
        ({"manifest_changes": {"version": "9.9.9"}}, "manifest_refused"),
        ({"manifest_changes": {"sha256": "0" * 64}}, "manifest_refused"),
        ({"manifest_changes": {"sequence": "1"}}, "manifest_refused"),
        ({"order_changes": {"manifest": "e30="}}, "manifest_refused"),
        ({"order_changes": {"manifest": "***"}}, "manifest_refused"),
        ({"order_changes": {"manifestSignature": "AAAA"}}, "manifest_refused"),
        ({"firmware_changes": {"keyId": "0" * 16}}, "unknown_key"),
        ({"firmware_changes": {"signature": "AAAA"}}, "signature_invalid"),
        ({"firmware_changes": {"signatureAlgorithm": "none"}}, "manifest_refused"),
    ],
)
def test_untrue_orders_are_refused_by_code(
    device: DeviceProcess, order: dict[str, Any], code: str
) -> None:
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0", **order)

    assert report["errorCode"] == code
    assert "installing" not in device.server.statuses(report["updateId"])
    assert device.current_sha256() == sha256(device.factory)
    assert set(device.executed()) <= {sha256(device.factory)}


def test_keys_that_are_not_pinned_are_refused(
    device: DeviceProcess, other_signer: Signer
) -> None:
    device.start()

    by_manifest = order_and_wait(device, program("2.0.0"), "2.0.0", signer=other_signer)
    by_image = order_and_wait(
        device, program("2.0.0"), "2.0.0", image_signer=other_signer
    )

    assert by_manifest["errorCode"] == "unknown_key"
    assert by_image["errorCode"] == "unknown_key"
    assert not device.server.downloads()


def test_image_and_manifest_may_be_signed_by_different_pinned_keys(
    device: DeviceProcess, other_signer: Signer, tmp_path: Path
) -> None:
    device.keys = write_keys(tmp_path / "keys", device.server.signer, other_signer)
    device.provision()
    device.start()

    report = order_and_wait(
        device, program("2.0.0"), "2.0.0", image_signer=other_signer
    )

    assert report["status"] == "confirming"


def test_lower_security_version_than_confirmed_is_refused(
    device: DeviceProcess,
) -> None:
    device.start()
    order_and_wait(device, program("2.0.0"), "2.0.0", security_version=3)

    report = order_and_wait(device, program("3.0.0"), "3.0.0", security_version=2)

    assert report["errorCode"] == "security_version_too_low"


def test_security_version_of_an_unconfirmed_image_binds_nothing(
    device: DeviceProcess,
) -> None:
    device.start()
    crashing = program("2.0.0", source=CRASHING_PROGRAM)
    order_and_wait(device, crashing, "2.0.0", security_version=9)

    report = order_and_wait(device, program("3.0.0"), "3.0.0", security_version=1)

    assert report["status"] == "confirming"


def test_replaced_sequence_is_refused(device: DeviceProcess) -> None:
    device.start()
    order_and_wait(device, program("2.0.0"), "2.0.0", sequence=10)

    lower = order_and_wait(device, program("3.0.0"), "3.0.0", sequence=9)
    other = order_and_wait(device, program("3.0.0"), "3.0.0", sequence=10)
    same = order_and_wait(device, program("2.0.0"), "2.0.0", sequence=10)

    assert lower["errorCode"] == "sequence_replaced"
    assert other["errorCode"] == "sequence_replaced"
    assert same["status"] == "confirming"


# Falling back


def test_program_that_crashes_at_start_falls_back(device: DeviceProcess) -> None:
    device.start()

    report = order_and_wait(device, program("2.0.0", source=CRASHING_PROGRAM), "2.0.0")

    assert report["errorCode"] == "self_test_failed"
    assert "exit code 7" in report["message"]
    assert report["firmwareVersion"] == "1.0.0"
    assert report["firmwareChecksum"] == sha256(device.factory)
    assert device.current_sha256() == sha256(device.factory)


def test_program_that_writes_no_metrics_falls_back(device: DeviceProcess) -> None:
    device.limits["first_metrics_seconds"] = 0.6
    device.provision()
    device.start()

    report = order_and_wait(device, program("2.0.0", source=SILENT_PROGRAM), "2.0.0")

    assert report["errorCode"] == "self_test_failed"
    assert device.current_sha256() == sha256(device.factory)


def test_image_that_takes_the_agent_down_falls_back_after_three_boots(
    device: DeviceProcess,
) -> None:
    update_id = device.server.order("device-1", program("2.0.0"), "2.0.0")
    # The first run switches and dies before its first trial, three die in a trial.
    for _ in range(4):
        assert device.start(crash_at="store.trying.synced").wait(180) == -signal.SIGKILL
    device.start()

    report = device.server.wait_for(update_id, "failed")

    assert report["errorCode"] == "self_test_failed"
    assert "3 starts" in report["message"]
    assert device.current_sha256() == sha256(device.factory)


def test_damaged_current_slot_boots_the_other_one(device: DeviceProcess) -> None:
    image = program("2.0.0")
    device.start()
    order_and_wait(device, image, "2.0.0")
    device.stop()
    damaged = (device.data / "current" / "image").resolve()
    damaged.write_bytes(image[:-1] + b"!")
    device.server.heartbeats.clear()

    device.start()
    beat = wait_until(lambda: device.server.heartbeats, what="a heartbeat")[0]

    assert beat["firmwareVersion"] == "1.0.0"
    assert sha256(damaged.read_bytes()) not in device.executed()


def test_device_without_a_bootable_slot_is_saved_by_an_update(
    device: DeviceProcess,
) -> None:
    device.start()
    wait_until(device.executed, what="the factory program")
    device.stop()
    (device.data / "slots" / "a" / "image").write_bytes(b"damaged")
    device.server.heartbeats.clear()
    device.start()
    beat = wait_until(lambda: device.server.heartbeats, what="a heartbeat")[0]

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert beat["applicationMetrics"]["applicationRunning"] == 0
    assert beat["applicationMetrics"]["errorRate"] == 1
    assert claim["status"] == "confirming"


def test_claim_not_yet_acknowledged_fails_if_its_image_is_damaged(
    device: DeviceProcess,
) -> None:
    device.start(crash_at="store.claiming.synced")
    update_id = device.server.order("device-1", program("2.0.0"), "2.0.0")
    wait_until(lambda: device.process and device.process.poll(), what="the crash")
    (device.data / "current" / "image").write_bytes(b"damaged")

    device.start()
    report = device.server.wait_for(update_id, "failed")

    assert report["firmwareChecksum"] == sha256(device.factory)
    assert "confirming" not in device.server.statuses(update_id)


# The server's moods


def test_closed_order_is_dropped(device: DeviceProcess) -> None:
    device.server.faults.close_on = "verifying"
    device.start()
    update_id = device.server.order("device-1", program("2.0.0"), "2.0.0")
    wait_until(lambda: "order dropped" in device.log(), what="the drop")

    device.server.faults.close_on = None
    claim = order_and_wait(device, program("3.0.0"), "3.0.0")

    assert "installing" not in device.server.statuses(update_id)
    assert claim["status"] == "confirming"
    assert not list((device.data / "downloads").iterdir())
    assert sha256(program("2.0.0")) not in device.executed()


def test_nothing_is_installed_before_installing_is_acknowledged(
    device: DeviceProcess,
) -> None:
    image = program("2.0.0")
    device.server.faults.lose_answers_to = ["installing"] * 3
    device.server.faults.refuse_with["/reports"] = []
    update_id = device.server.order("device-1", image, "2.0.0")
    device.start(crash_at="announce.acknowledged")
    wait_until(lambda: device.process and device.process.poll(), what="the crash")

    reports = device.server.reports_of(update_id)
    installing = [each for each in reports if each["status"] == "installing"]
    assert len(installing) == 4
    assert len({each["sequence"] for each in installing}) == 1
    assert not (device.data / "slots" / "b" / "image").exists()


def test_lost_answers_to_a_claim_are_asked_for_again(device: DeviceProcess) -> None:
    device.server.faults.lose_answers_to = ["confirming", "confirming"]
    device.start()

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")
    wait_until(lambda: "update claimed" in device.log(), what="the end of the order")

    assert device.server.statuses(claim["updateId"]).count("confirming") == 3


def test_retry_after_is_honoured(device: DeviceProcess) -> None:
    device.server.faults.refuse_with["/update"] = [503]
    device.server.faults.retry_after = "1"
    device.server.heartbeat_seconds = 30
    device.start()
    wait_until(
        lambda: (
            sum(each.path.endswith("/update") for each in device.server.requests) >= 2
        ),
        what="two polls",
    )

    polls = [
        each.at for each in device.server.requests if each.path.endswith("/update")
    ]

    assert polls[1] - polls[0] >= 1.0


def test_refused_heartbeats_keep_no_order_away(device: DeviceProcess) -> None:
    device.server.faults.refuse_with["/health"] = [400] * 1000
    device.start()

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert claim["status"] == "confirming"


def test_expired_token_is_renewed(device: DeviceProcess) -> None:
    device.start()
    wait_until(lambda: device.server.heartbeats, what="a heartbeat")
    device.server.change_token()
    device.server.heartbeats.clear()

    assert wait_until(lambda: device.server.heartbeats, what="another heartbeat")


def test_server_that_is_away_is_waited_for(device: DeviceProcess) -> None:
    device.server.faults.refuse_with[""] = [503] * 5
    device.start()

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert claim["status"] == "confirming"


# The process


def test_sigterm_ends_agent_and_application(device: DeviceProcess) -> None:
    device.start()
    wait_until(device.executed, what="the program")
    pid = device.application_pid()

    code = device.stop()

    assert code == 0
    assert not is_alive(pid)


def test_application_dies_with_a_killed_agent(device: DeviceProcess) -> None:
    device.start()
    wait_until(device.executed, what="the program")
    pid = device.application_pid()

    device.kill()

    wait_until(lambda: not is_alive(pid), what="the end of the program")


def test_application_that_dies_is_started_again(device: DeviceProcess) -> None:
    device.start()
    wait_until(device.executed, what="the program")

    os.kill(device.application_pid(), signal.SIGKILL)

    wait_until(lambda: len(device.executed()) == 2, what="the restart")
    beat = device.server.wait_for_heartbeat(
        lambda each: each["applicationMetrics"]["applicationRestarts"]
    )
    assert beat["applicationMetrics"]["applicationRunning"] == 1


def test_second_agent_on_the_same_folder_is_refused(device: DeviceProcess) -> None:
    device.start()
    wait_until(lambda: device.server.heartbeats, what="a heartbeat")

    second = subprocess.run(
        [sys.executable, "-m", "devices.agent", "--config", str(device.config)],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert second.returncode == 4


def test_wrong_configuration_names_the_key(device: DeviceProcess) -> None:
    device.config.write_text(device.config.read_text() + "\nchunk_byte = 1\n")

    code = device.start().wait(180)

    assert code == 2
    assert "limits.chunk_byte: unknown key" in device.log()


def test_reboot_command_is_the_hook_to_a_real_reboot(device: DeviceProcess) -> None:
    device.boot_id = "kernel"
    device.reboot_command = ["/bin/sh", "-c", f"echo x >> {device.folder}/reboots"]
    device.limits |= {"reboot_timeout_seconds": 0.05}
    device.provision()
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    # This machine does not reboot for a test, and the agent must not hang on it.
    assert report["errorCode"] == "install_failed"
    assert report["message"] == "The device does not reboot."
    assert len((device.folder / "reboots").read_text().split()) >= 3
    assert device.current_sha256() == sha256(device.factory)


def test_damaged_state_begins_anew_with_the_floor_of_the_slots(
    device: DeviceProcess,
) -> None:
    device.start()
    order_and_wait(device, program("2.0.0"), "2.0.0", sequence=10, security_version=4)
    wait_until(lambda: "update claimed" in device.log(), what="the end of the order")
    device.stop()
    (device.data / "state.json").write_text("{")
    device.start()

    low_sequence = order_and_wait(device, program("3.0.0"), "3.0.0", sequence=9)
    low_security = order_and_wait(
        device, program("3.0.0"), "3.0.0", sequence=11, security_version=3
    )

    assert low_sequence["errorCode"] in {
        "sequence_replaced",
        "security_version_too_low",
    }
    assert low_security["errorCode"] == "security_version_too_low"


def test_each_line_of_the_log_is_json_with_the_keys_of_the_server(
    device: DeviceProcess,
) -> None:
    device.start()
    order_and_wait(device, program("2.0.0"), "2.0.0")
    wait_until(lambda: "update claimed" in device.log(), what="the end of the order")
    device.stop()

    lines = [json.loads(line) for line in device.log().splitlines()]

    assert lines[0]["message"] == "factory image installed"
    for line in lines:
        assert list(line)[:4] == ["timestamp", "level", "message", "logger"]
        assert line["level"] in {"INFO", "WARNING", "ERROR"}
        assert line["deviceId"] == device.device_id
    (claimed,) = (line for line in lines if line["message"] == "update claimed")
    assert (claimed["firmwareVersion"], len(claimed["traceId"])) == ("2.0.0", 32)


def test_logs_can_be_plain(device: DeviceProcess) -> None:
    device.start("--log-format", "plain", "--once").wait(180)

    first = device.log().splitlines()[0].split(" ", 1)[1]

    assert first.startswith("info    factory image installed")


def test_agent_loads_nothing_but_the_standard_library_and_cryptography() -> None:
    script = (
        "import sys, devices.agent.__main__\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print('\\n'.join(sorted(tops - set(sys.stdlib_module_names))))\n"
    )
    # What measures the coverage of the tests would load itself into the process.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COVERAGE")
    }
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = {name for name in result.stdout.split() if not name.startswith("__")}

    assert loaded - {"_distutils_hack", "sitecustomize"} <= {
        "cryptography",
        "_openssl",
        "_cffi_backend",
        "cffi",
        "devices",
    }
