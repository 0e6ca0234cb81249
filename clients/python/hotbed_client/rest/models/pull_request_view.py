from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="PullRequestView")


@_attrs_define
class PullRequestView:
    approvals: int
    """ Reviewers whose last word is an approval. """
    author: str
    base: str
    body: str
    changes_requested: int
    """ Reviewers whose last word is that something has to change. """
    created_at: datetime.datetime
    draft: bool
    head: str
    id: str
    repo: str
    revisions: int
    """ How often its commits changed after it was opened. """
    session: str
    state: str
    """ `pending`, `open`, `merged`, `closed` or `refused`. """
    title: str
    error: None | str | Unset = UNSET
    head_commit: None | str | Unset = UNSET
    merged_at: datetime.datetime | None | Unset = UNSET
    number: int | None | Unset = UNSET
    opened_at: datetime.datetime | None | Unset = UNSET
    url: None | str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        approvals = self.approvals

        author = self.author

        base = self.base

        body = self.body

        changes_requested = self.changes_requested

        created_at = self.created_at.isoformat()

        draft = self.draft

        head = self.head

        id = self.id

        repo = self.repo

        revisions = self.revisions

        session = self.session

        state = self.state

        title = self.title

        error: None | str | Unset
        if isinstance(self.error, Unset):
            error = UNSET
        else:
            error = self.error

        head_commit: None | str | Unset
        if isinstance(self.head_commit, Unset):
            head_commit = UNSET
        else:
            head_commit = self.head_commit

        merged_at: None | str | Unset
        if isinstance(self.merged_at, Unset):
            merged_at = UNSET
        elif isinstance(self.merged_at, datetime.datetime):
            merged_at = self.merged_at.isoformat()
        else:
            merged_at = self.merged_at

        number: int | None | Unset
        if isinstance(self.number, Unset):
            number = UNSET
        else:
            number = self.number

        opened_at: None | str | Unset
        if isinstance(self.opened_at, Unset):
            opened_at = UNSET
        elif isinstance(self.opened_at, datetime.datetime):
            opened_at = self.opened_at.isoformat()
        else:
            opened_at = self.opened_at

        url: None | str | Unset
        if isinstance(self.url, Unset):
            url = UNSET
        else:
            url = self.url

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "approvals": approvals,
                "author": author,
                "base": base,
                "body": body,
                "changes_requested": changes_requested,
                "created_at": created_at,
                "draft": draft,
                "head": head,
                "id": id,
                "repo": repo,
                "revisions": revisions,
                "session": session,
                "state": state,
                "title": title,
            }
        )
        if error is not UNSET:
            field_dict["error"] = error
        if head_commit is not UNSET:
            field_dict["head_commit"] = head_commit
        if merged_at is not UNSET:
            field_dict["merged_at"] = merged_at
        if number is not UNSET:
            field_dict["number"] = number
        if opened_at is not UNSET:
            field_dict["opened_at"] = opened_at
        if url is not UNSET:
            field_dict["url"] = url

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        approvals = d.pop("approvals")

        author = d.pop("author")

        base = d.pop("base")

        body = d.pop("body")

        changes_requested = d.pop("changes_requested")

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        draft = d.pop("draft")

        head = d.pop("head")

        id = d.pop("id")

        repo = d.pop("repo")

        revisions = d.pop("revisions")

        session = d.pop("session")

        state = d.pop("state")

        title = d.pop("title")

        def _parse_error(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        error = _parse_error(d.pop("error", UNSET))

        def _parse_head_commit(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        head_commit = _parse_head_commit(d.pop("head_commit", UNSET))

        def _parse_merged_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                merged_at_type_0 = datetime.datetime.fromisoformat(data)

                return merged_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        merged_at = _parse_merged_at(d.pop("merged_at", UNSET))

        def _parse_number(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        number = _parse_number(d.pop("number", UNSET))

        def _parse_opened_at(data: object) -> datetime.datetime | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, str):
                    raise TypeError()
                opened_at_type_0 = datetime.datetime.fromisoformat(data)

                return opened_at_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(datetime.datetime | None | Unset, data)

        opened_at = _parse_opened_at(d.pop("opened_at", UNSET))

        def _parse_url(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        url = _parse_url(d.pop("url", UNSET))

        pull_request_view = cls(
            approvals=approvals,
            author=author,
            base=base,
            body=body,
            changes_requested=changes_requested,
            created_at=created_at,
            draft=draft,
            head=head,
            id=id,
            repo=repo,
            revisions=revisions,
            session=session,
            state=state,
            title=title,
            error=error,
            head_commit=head_commit,
            merged_at=merged_at,
            number=number,
            opened_at=opened_at,
            url=url,
        )

        pull_request_view.additional_properties = d
        return pull_request_view

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
