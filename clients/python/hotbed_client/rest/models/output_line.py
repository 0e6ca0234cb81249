from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.exit_view import ExitView


T = TypeVar("T", bound="OutputLine")


@_attrs_define
class OutputLine:
    """One line of `…/output`."""

    exit_: ExitView | None | Unset = UNSET
    hex_: None | str | Unset = UNSET
    """ The bytes in hexadecimal, when they are no UTF-8. """
    offset: int | None | Unset = UNSET
    """ Of the first byte; `from=` takes the offset behind the last one. """
    stream: None | str | Unset = UNSET
    """ `stdout` or `stderr`; absent on the last line. """
    text: None | str | Unset = UNSET
    """ The text, or nothing when the bytes are no UTF-8. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.exit_view import ExitView

        exit_: dict[str, Any] | None | Unset
        if isinstance(self.exit_, Unset):
            exit_ = UNSET
        elif isinstance(self.exit_, ExitView):
            exit_ = self.exit_.to_dict()
        else:
            exit_ = self.exit_

        hex_: None | str | Unset
        if isinstance(self.hex_, Unset):
            hex_ = UNSET
        else:
            hex_ = self.hex_

        offset: int | None | Unset
        if isinstance(self.offset, Unset):
            offset = UNSET
        else:
            offset = self.offset

        stream: None | str | Unset
        if isinstance(self.stream, Unset):
            stream = UNSET
        else:
            stream = self.stream

        text: None | str | Unset
        if isinstance(self.text, Unset):
            text = UNSET
        else:
            text = self.text

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if exit_ is not UNSET:
            field_dict["exit"] = exit_
        if hex_ is not UNSET:
            field_dict["hex"] = hex_
        if offset is not UNSET:
            field_dict["offset"] = offset
        if stream is not UNSET:
            field_dict["stream"] = stream
        if text is not UNSET:
            field_dict["text"] = text

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.exit_view import ExitView

        d = dict(src_dict)

        def _parse_exit_(data: object) -> ExitView | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                exit_type_0 = ExitView.from_dict(data)

                return exit_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(ExitView | None | Unset, data)

        exit_ = _parse_exit_(d.pop("exit", UNSET))

        def _parse_hex_(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        hex_ = _parse_hex_(d.pop("hex", UNSET))

        def _parse_offset(data: object) -> int | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(int | None | Unset, data)

        offset = _parse_offset(d.pop("offset", UNSET))

        def _parse_stream(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        stream = _parse_stream(d.pop("stream", UNSET))

        def _parse_text(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        text = _parse_text(d.pop("text", UNSET))

        output_line = cls(
            exit_=exit_,
            hex_=hex_,
            offset=offset,
            stream=stream,
            text=text,
        )

        output_line.additional_properties = d
        return output_line

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
