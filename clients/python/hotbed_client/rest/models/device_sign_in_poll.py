from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.user_view import UserView


T = TypeVar("T", bound="DeviceSignInPoll")


@_attrs_define
class DeviceSignInPoll:
    state: str
    """ `pending`, `done`, `refused` or `expired`. """
    again_in_seconds: int | None | Unset = UNSET
    """ While it is pending. """
    user: None | Unset | UserView = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.user_view import UserView

        state = self.state

        again_in_seconds: int | None | Unset
        if isinstance(self.again_in_seconds, Unset):
            again_in_seconds = UNSET
        else:
            again_in_seconds = self.again_in_seconds

        user: dict[str, Any] | None | Unset
        if isinstance(self.user, Unset):
            user = UNSET
        elif isinstance(self.user, UserView):
            user = self.user.to_dict()
        else:
            user = self.user

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "state": state,
            }
        )
        if again_in_seconds is not UNSET:
            field_dict["again_in_seconds"] = again_in_seconds
        if user is not UNSET:
            field_dict["user"] = user

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.user_view import UserView

        d = dict(src_dict)
        state = d.pop("state")

        def _parse_again_in_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        again_in_seconds = _parse_again_in_seconds(d.pop("again_in_seconds", UNSET))

        def _parse_user(data: object) -> None | Unset | UserView:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                user_type_0 = UserView.from_dict(data)

                return user_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | Unset | UserView, data)

        user = _parse_user(d.pop("user", UNSET))

        device_sign_in_poll = cls(
            state=state,
            again_in_seconds=again_in_seconds,
            user=user,
        )

        device_sign_in_poll.additional_properties = d
        return device_sign_in_poll

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
