from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

T = TypeVar("T", bound="SendSignal")


@_attrs_define
class SendSignal:
    signal: str
    """ `TERM`, `INT`, `KILL`, `HUP`, `QUIT`, `USR1`, `USR2`, `STOP`, `CONT` or `WINCH`. """

    def to_dict(self) -> dict[str, Any]:
        signal = self.signal

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "signal": signal,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        signal = d.pop("signal")

        send_signal = cls(
            signal=signal,
        )

        return send_signal
