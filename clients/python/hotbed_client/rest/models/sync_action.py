from enum import StrEnum


class SyncAction(StrEnum):
    ACCEPT_STALE = "accept_stale"
    RETRY = "retry"

    def __str__(self) -> str:
        return str(self.value)
