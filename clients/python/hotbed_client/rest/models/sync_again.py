from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define

from ..models.sync_action import SyncAction

T = TypeVar("T", bound="SyncAgain")


@_attrs_define
class SyncAgain:
    action: SyncAction

    def to_dict(self) -> dict[str, Any]:
        action = self.action.value

        field_dict: dict[str, Any] = {}

        field_dict.update(
            {
                "action": action,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        action = SyncAction(d.pop("action"))

        sync_again = cls(
            action=action,
        )

        return sync_again
