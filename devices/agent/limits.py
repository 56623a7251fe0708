"""Numbers that bound what the agent does, with their defaults."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes, times and counts; the server's own intervals come before these."""

    max_image_bytes: int = 100 * 1024 * 1024
    chunk_bytes: int = 1024 * 1024
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 30.0
    fetch_attempts: int = 3
    max_boot_attempts: int = 3
    first_metrics_seconds: float = 30.0
    stale_metrics_seconds: float = 30.0
    reboot_attempts: int = 3
    reboot_timeout_seconds: float = 120.0
    download_patience_seconds: float = 86400.0
    progress_seconds: float = 2.0
    retry_first_seconds: float = 1.0
    retry_ceiling_seconds: float = 60.0
    poll_seconds: float = 60.0
    heartbeat_seconds: float = 60.0
    restart_first_seconds: float = 1.0
    restart_ceiling_seconds: float = 60.0
