from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.build_view import BuildView
    from ..models.image_view import ImageView
    from ..models.pool_view import PoolView


T = TypeVar("T", bound="RepoView")


@_attrs_define
class RepoView:
    branch: str
    name: str
    url: str
    build: BuildView | None | Unset = UNSET
    canary: ImageView | None | Unset = UNSET
    commits_behind: int | None | Unset = UNSET
    """ Commits that the branch has and the image has not, as of the last look; only where one repo is read. """
    image: ImageView | None | Unset = UNSET
    image_age_seconds: int | None | Unset = UNSET
    """ Seconds since the current image was captured. """
    pool: None | PoolView | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.build_view import BuildView
        from ..models.image_view import ImageView
        from ..models.pool_view import PoolView

        branch = self.branch

        name = self.name

        url = self.url

        build: dict[str, Any] | None | Unset
        if isinstance(self.build, Unset):
            build = UNSET
        elif isinstance(self.build, BuildView):
            build = self.build.to_dict()
        else:
            build = self.build

        canary: dict[str, Any] | None | Unset
        if isinstance(self.canary, Unset):
            canary = UNSET
        elif isinstance(self.canary, ImageView):
            canary = self.canary.to_dict()
        else:
            canary = self.canary

        commits_behind: int | None | Unset
        if isinstance(self.commits_behind, Unset):
            commits_behind = UNSET
        else:
            commits_behind = self.commits_behind

        image: dict[str, Any] | None | Unset
        if isinstance(self.image, Unset):
            image = UNSET
        elif isinstance(self.image, ImageView):
            image = self.image.to_dict()
        else:
            image = self.image

        image_age_seconds: int | None | Unset
        if isinstance(self.image_age_seconds, Unset):
            image_age_seconds = UNSET
        else:
            image_age_seconds = self.image_age_seconds

        pool: dict[str, Any] | None | Unset
        if isinstance(self.pool, Unset):
            pool = UNSET
        elif isinstance(self.pool, PoolView):
            pool = self.pool.to_dict()
        else:
            pool = self.pool

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "branch": branch,
                "name": name,
                "url": url,
            }
        )
        if build is not UNSET:
            field_dict["build"] = build
        if canary is not UNSET:
            field_dict["canary"] = canary
        if commits_behind is not UNSET:
            field_dict["commits_behind"] = commits_behind
        if image is not UNSET:
            field_dict["image"] = image
        if image_age_seconds is not UNSET:
            field_dict["image_age_seconds"] = image_age_seconds
        if pool is not UNSET:
            field_dict["pool"] = pool

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.build_view import BuildView
        from ..models.image_view import ImageView
        from ..models.pool_view import PoolView

        d = dict(src_dict)
        branch = d.pop("branch")

        name = d.pop("name")

        url = d.pop("url")

        def _parse_build(data: object) -> BuildView | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                build_type_0 = BuildView.from_dict(data)

                return build_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(BuildView | None | Unset, data)

        build = _parse_build(d.pop("build", UNSET))

        def _parse_canary(data: object) -> ImageView | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                canary_type_0 = ImageView.from_dict(data)

                return canary_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(ImageView | None | Unset, data)

        canary = _parse_canary(d.pop("canary", UNSET))

        def _parse_commits_behind(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        commits_behind = _parse_commits_behind(d.pop("commits_behind", UNSET))

        def _parse_image(data: object) -> ImageView | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                image_type_0 = ImageView.from_dict(data)

                return image_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(ImageView | None | Unset, data)

        image = _parse_image(d.pop("image", UNSET))

        def _parse_image_age_seconds(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        image_age_seconds = _parse_image_age_seconds(d.pop("image_age_seconds", UNSET))

        def _parse_pool(data: object) -> None | PoolView | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                pool_type_0 = PoolView.from_dict(data)

                return pool_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(None | PoolView | Unset, data)

        pool = _parse_pool(d.pop("pool", UNSET))

        repo_view = cls(
            branch=branch,
            name=name,
            url=url,
            build=build,
            canary=canary,
            commits_behind=commits_behind,
            image=image,
            image_age_seconds=image_age_seconds,
            pool=pool,
        )

        repo_view.additional_properties = d
        return repo_view

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
