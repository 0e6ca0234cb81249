from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="AuditView")


@_attrs_define
class AuditView:
    """One line of the audit log."""

    action: str
    """ Method and route, as this description writes them. """
    at: datetime.datetime
    from_: str
    """ Where the request came from: address and port, or `unix`. """
    outcome: str
    """ `done`, `refused`, `denied` or `failed`. """
    seq: int
    """ Its number: they grow with time and are never given twice. """
    status: int
    """ The HTTP status of the answer. """
    subject: str
    """ The path that was asked for, without its query. """
    times: int
    """ How many requests it stands for. The first refusal of a kind is a line of its own; those after it within a
    minute share one. """
    who: str
    """ The name of the key, `oidc:ISSUER#SUBJECT` of a token, or the client of a page's token; `(nobody)` where no
    key or token was accepted. """
    key: None | str | Unset = UNSET
    """ Null for the installation's own key, for tokens and for pages. """
    made: None | str | Unset = UNSET
    """ The id of what came of it. """
    user: None | str | Unset = UNSET
    """ The user of the session that it was about; else who did it, where a token says so. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        action = self.action

        at = self.at.isoformat()

        from_ = self.from_

        outcome = self.outcome

        seq = self.seq

        status = self.status

        subject = self.subject

        times = self.times

        who = self.who

        key: None | str | Unset
        if isinstance(self.key, Unset):
            key = UNSET
        else:
            key = self.key

        made: None | str | Unset
        if isinstance(self.made, Unset):
            made = UNSET
        else:
            made = self.made

        user: None | str | Unset
        if isinstance(self.user, Unset):
            user = UNSET
        else:
            user = self.user

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "action": action,
                "at": at,
                "from": from_,
                "outcome": outcome,
                "seq": seq,
                "status": status,
                "subject": subject,
                "times": times,
                "who": who,
            }
        )
        if key is not UNSET:
            field_dict["key"] = key
        if made is not UNSET:
            field_dict["made"] = made
        if user is not UNSET:
            field_dict["user"] = user

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        action = d.pop("action")

        at = datetime.datetime.fromisoformat(d.pop("at"))

        from_ = d.pop("from")

        outcome = d.pop("outcome")

        seq = d.pop("seq")

        status = d.pop("status")

        subject = d.pop("subject")

        times = d.pop("times")

        who = d.pop("who")

        def _parse_key(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        key = _parse_key(d.pop("key", UNSET))

        def _parse_made(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        made = _parse_made(d.pop("made", UNSET))

        def _parse_user(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        user = _parse_user(d.pop("user", UNSET))

        audit_view = cls(
            action=action,
            at=at,
            from_=from_,
            outcome=outcome,
            seq=seq,
            status=status,
            subject=subject,
            times=times,
            who=who,
            key=key,
            made=made,
            user=user,
        )

        audit_view.additional_properties = d
        return audit_view

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
