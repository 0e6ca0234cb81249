from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.image_failure_view import ImageFailureView


T = TypeVar("T", bound="ImageView")


@_attrs_define
class ImageView:
    agent_version: str
    base_digest: str
    branch: str
    build: str
    commit: str
    created_at: datetime.datetime
    digest: str
    fingerprint: str
    """ Of what it was made of: recipe, base, certificates. """
    generation: int
    id: str
    pinned: bool
    """ Kept by an operator. """
    repo: str
    size: int
    """ Bytes, all layers. """
    state: str
    """ `candidate`, `canary`, `current`, `superseded`, `rejected`, `demoted` or `removing`. """
    verified_at: datetime.datetime
    went_well: int
    """ Sessions that began well on it while it was a canary. """
    failures: list[ImageFailureView] | Unset = UNSET
    """ Sandboxes in which it failed since it was promoted, the latest of them, oldest first. """
    parent: None | str | Unset = UNSET
    """ The image that it was built on; absent for a full build. """
    registry: None | str | Unset = UNSET
    """ Where a registry has it: `repository@digest`. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        agent_version = self.agent_version

        base_digest = self.base_digest

        branch = self.branch

        build = self.build

        commit = self.commit

        created_at = self.created_at.isoformat()

        digest = self.digest

        fingerprint = self.fingerprint

        generation = self.generation

        id = self.id

        pinned = self.pinned

        repo = self.repo

        size = self.size

        state = self.state

        verified_at = self.verified_at.isoformat()

        went_well = self.went_well

        failures: list[dict[str, Any]] | Unset = UNSET
        if not isinstance(self.failures, Unset):
            failures = []
            for failures_item_data in self.failures:
                failures_item = failures_item_data.to_dict()
                failures.append(failures_item)

        parent: None | str | Unset
        if isinstance(self.parent, Unset):
            parent = UNSET
        else:
            parent = self.parent

        registry: None | str | Unset
        if isinstance(self.registry, Unset):
            registry = UNSET
        else:
            registry = self.registry

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "agent_version": agent_version,
                "base_digest": base_digest,
                "branch": branch,
                "build": build,
                "commit": commit,
                "created_at": created_at,
                "digest": digest,
                "fingerprint": fingerprint,
                "generation": generation,
                "id": id,
                "pinned": pinned,
                "repo": repo,
                "size": size,
                "state": state,
                "verified_at": verified_at,
                "went_well": went_well,
            }
        )
        if failures is not UNSET:
            field_dict["failures"] = failures
        if parent is not UNSET:
            field_dict["parent"] = parent
        if registry is not UNSET:
            field_dict["registry"] = registry

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.image_failure_view import ImageFailureView

        d = dict(src_dict)
        agent_version = d.pop("agent_version")

        base_digest = d.pop("base_digest")

        branch = d.pop("branch")

        build = d.pop("build")

        commit = d.pop("commit")

        created_at = datetime.datetime.fromisoformat(d.pop("created_at"))

        digest = d.pop("digest")

        fingerprint = d.pop("fingerprint")

        generation = d.pop("generation")

        id = d.pop("id")

        pinned = d.pop("pinned")

        repo = d.pop("repo")

        size = d.pop("size")

        state = d.pop("state")

        verified_at = datetime.datetime.fromisoformat(d.pop("verified_at"))

        went_well = d.pop("went_well")

        _failures = d.pop("failures", UNSET)
        failures: list[ImageFailureView] | Unset = UNSET
        if _failures is not UNSET:
            failures = []
            for failures_item_data in _failures:
                failures_item = ImageFailureView.from_dict(failures_item_data)

                failures.append(failures_item)

        def _parse_parent(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        parent = _parse_parent(d.pop("parent", UNSET))

        def _parse_registry(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        registry = _parse_registry(d.pop("registry", UNSET))

        image_view = cls(
            agent_version=agent_version,
            base_digest=base_digest,
            branch=branch,
            build=build,
            commit=commit,
            created_at=created_at,
            digest=digest,
            fingerprint=fingerprint,
            generation=generation,
            id=id,
            pinned=pinned,
            repo=repo,
            size=size,
            state=state,
            verified_at=verified_at,
            went_well=went_well,
            failures=failures,
            parent=parent,
            registry=registry,
        )

        image_view.additional_properties = d
        return image_view

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
