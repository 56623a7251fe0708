"""What people do next about a device that an error code speaks of.

Rules:
- One sentence for each code, for the console, the API and the documentation alike.
- A device that needs nothing gets none.
- Devices may report codes of their own; those get the sentence for all others.
- What a sentence tells to do is allowed: where it says "retry it", the way is named
  that the status of the deployment leaves open.
"""

import re

AGAIN = re.compile(r"\bretry it\b")
RETRY = "retry it (`retry-failed`)"
RETRY_LATER = f"{RETRY} once it is back on its former image"
COPY = "`copy` the deployment for it"

NEXT_STEPS = {
    "rollback_unconfirmed": "Visit the device or its console: it was ordered back and "
    "has not shown its former image. Nothing more is sent to it by this deployment.",
    "no_previous_image": "Upload the image that it ran before, approve it, and deploy "
    "it to this device: the server had nothing to send it back to.",
    "rollback_forbidden": "Deploy a corrected image of the same security version or a "
    "higher one: the device would refuse its former image.",
    "offline": "Look at its power and network; it has not been heard from since its "
    "update.",
    "cpu": "Look for what the new firmware computes, then correct it and upload it "
    "under a new version.",
    "memory": "Look for what the new firmware keeps in memory, then correct it and "
    "upload it under a new version.",
    "unhealthy": "Read the health of the device since its update, then correct the "
    "firmware and upload it under a new version.",
    "error_rate": "Read the logs of its application, then correct the firmware and "
    "upload it under a new version.",
    "self_test_failed": "Read what its self-test said; it runs its former image. "
    "Correct the firmware and upload it under a new version.",
    "fell_back": "Find out why it left the new image, by the logs of the device, "
    "before it is tried again.",
    "device_fell_back": "Find out why its boot loader chose another image, by the logs "
    "of the device, before it is tried again.",
    "not_proven": "Compare what it claims with what its heartbeats show; retry it when "
    "they agree.",
    "timeout": "See whether it is online and how far it came; retry it, or `copy` the "
    "deployment with a longer `deviceTimeout`.",
    "never_seen": "Bring it online, then deploy to it again: it was never offered the "
    "update.",
    "download_failed": "Look at its network and its path to this server, then retry "
    "it.",
    "path_unauthorized": "Look at what stands between the device and the images, a "
    "proxy or a store that asks for a login, then retry it.",
    "path_not_found": "Look at how proxies and `HOTSWAP_PUBLIC_URL` lead to the "
    "images, then retry it: the address that the device was given holds nothing.",
    "path_server_error": "Look at the store or proxy that hands out the images: it "
    "fails while the rest of the server answers. Then retry it.",
    "path_foreign_host": "Look at the address of the images (`HOTSWAP_PUBLIC_URL`, "
    "the store): it names a host that does not serve this device. Then retry it.",
    "path_not_firmware": "Look at its network: a proxy or portal on the way answers "
    "with something other than the image. Then retry it.",
    "device_storage_full": "Make room on the device, then retry it.",
    "image_not_kept": "Look at its slots: its agent does not keep the image that it "
    "was ordered back to, or its bytes have changed. Upload that image, approve it, "
    "and deploy it.",
    "install_failed": "Look at its storage and the hooks of its agent, then retry it.",
    "signature_invalid": "Do not try it again. Verify the image on its page: what the "
    "device received does not fit its signature.",
    "checksum_mismatch": "Look for what changes the bytes between this server and the "
    "device, then retry it.",
    "size_mismatch": "Verify the image on its page: the device received another "
    "number of bytes than were ordered.",
    "unknown_key": "Bring the signing key to the device, then retry it.",
    "manifest_refused": "Look at the clock and the keys of the device; it refused "
    "what it was ordered.",
    "wrong_model": "Correct the model of the device, or deploy the image for its "
    "model.",
    "security_version_too_low": "Deploy an image of a higher security version: the "
    "device has confirmed one.",
    "sequence_replaced": "Look at the clock of the database server: the device has "
    "accepted orders from a later time than it shows. Then retry it.",
    "quarantined": "Look at its quarantine: release it when the image is known to be "
    "good, or deploy another one.",
    "disabled": "Enable the device, then deploy to it again.",
    "unknown_timezone": "Correct its tag `timezone`, as in `Europe/Berlin`, then "
    "deploy to it again: nobody knew when its maintenance window was open.",
    "secure_boot_required": "Turn its secure boot on, then deploy to it again.",
    "security_version": "Deploy an image of a higher security version: the device has "
    "confirmed one.",
    "device_state_unknown": "Look at the hook `current` of its agent: it does not say "
    "what runs.",
}
# Nothing is wrong with these devices.
NOTHING_TO_DO = frozenset(
    {
        "already_installed",
        "moved_on",
        "erased",
        "returned_by_operator",
        "left_out_by_operator",
    }
)
OTHERWISE = (
    "Read its log on the page of the device, then retry it or deploy a corrected image."
)


def next_step(code: str, again: str = RETRY) -> str:
    """Return what to do about an error code; nothing where there is none.

    Args:
        again: as `deployments.reads.devices.way_to_try_again` says it.
    """
    if not code or code in NOTHING_TO_DO:
        return ""
    return AGAIN.sub(again, NEXT_STEPS.get(code, OTHERWISE))
