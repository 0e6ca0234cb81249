from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.commits_view import CommitsView
    from ..models.files_view import FilesView
    from ..models.image_view import ImageView
    from ..models.packages_view import PackagesView


T = TypeVar("T", bound="ImageDiffView")


@_attrs_define
class ImageDiffView:
    """From one image to another of the same repo."""

    commits: CommitsView
    commits_gone: CommitsView
    files: FilesView
    from_: ImageView
    packages: PackagesView
    size_change: int
    """ Bytes of all layers, `to` less `from`. """
    to: ImageView
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        commits = self.commits.to_dict()

        commits_gone = self.commits_gone.to_dict()

        files = self.files.to_dict()

        from_ = self.from_.to_dict()

        packages = self.packages.to_dict()

        size_change = self.size_change

        to = self.to.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "commits": commits,
                "commits_gone": commits_gone,
                "files": files,
                "from": from_,
                "packages": packages,
                "size_change": size_change,
                "to": to,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.commits_view import CommitsView
        from ..models.files_view import FilesView
        from ..models.image_view import ImageView
        from ..models.packages_view import PackagesView

        d = dict(src_dict)
        commits = CommitsView.from_dict(d.pop("commits"))

        commits_gone = CommitsView.from_dict(d.pop("commits_gone"))

        files = FilesView.from_dict(d.pop("files"))

        from_ = ImageView.from_dict(d.pop("from"))

        packages = PackagesView.from_dict(d.pop("packages"))

        size_change = d.pop("size_change")

        to = ImageView.from_dict(d.pop("to"))

        image_diff_view = cls(
            commits=commits,
            commits_gone=commits_gone,
            files=files,
            from_=from_,
            packages=packages,
            size_change=size_change,
            to=to,
        )

        image_diff_view.additional_properties = d
        return image_diff_view

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
