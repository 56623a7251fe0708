"""Numbers that bound what the agent does, with their defaults."""

from dataclasses import dataclass

MAX_REPORT_CEILING_SECONDS = 30.0
"""Every step is reported within this time of a server that answers (FR-FW-004)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes, times and counts; the server's own intervals come before these.

    A rate of 0 bytes per second is no limit.
    """

    max_image_bytes: int = 100 * 1024 * 1024
    chunk_bytes: int = 1024 * 1024
    max_bytes_per_second: int = 0
    min_bytes_per_second: int = 0
    min_rate_window_seconds: float = 30.0
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 30.0
    fetch_attempts: int = 3
    max_boot_attempts: int = 3
    first_metrics_seconds: float = 30.0
    stale_metrics_seconds: float = 30.0
    hook_patience_seconds: float = 3600.0
    reboot_attempts: int = 3
    reboot_timeout_seconds: float = 120.0
    download_patience_seconds: float = 86400.0
    path_patience_seconds: float = 600.0
    progress_seconds: float = 2.0
    retry_first_seconds: float = 1.0
    retry_ceiling_seconds: float = 60.0
    report_ceiling_seconds: float = 20.0
    report_patience_seconds: float = 86400.0
    rotate_key_before_seconds: float = 14 * 86400.0
    rotate_retry_first_seconds: float = 60.0
    rotate_retry_ceiling_seconds: float = 3600.0
    poll_seconds: float = 60.0
    heartbeat_seconds: float = 60.0
    restart_first_seconds: float = 1.0
    restart_ceiling_seconds: float = 60.0
