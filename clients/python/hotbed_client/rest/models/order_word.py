from enum import StrEnum


class OrderWord(StrEnum):
    DRAIN = "drain"
    PAUSE = "pause"
    SET = "set"

    def __str__(self) -> str:
        return str(self.value)
