from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.exit_view import ExitView


T = TypeVar("T", bound="ExecView")


@_attrs_define
class ExecView:
    dropped_bytes: int
    """ Offsets below this are no longer kept. """
    id: str
    output_bytes: int
    """ The offset that the next byte of output will have. """
    running: bool
    exit_: ExitView | None | Unset = UNSET
    stderr: None | str | Unset = UNSET
    stdout: None | str | Unset = UNSET
    """ With `wait`: what it printed. Bytes that are no UTF-8 are replaced. """
    truncated: bool | None | Unset = UNSET
    """ With `wait`: more was printed than is shown; the whole is at `…/output`. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.exit_view import ExitView

        dropped_bytes = self.dropped_bytes

        id = self.id

        output_bytes = self.output_bytes

        running = self.running

        exit_: dict[str, Any] | None | Unset
        if isinstance(self.exit_, Unset):
            exit_ = UNSET
        elif isinstance(self.exit_, ExitView):
            exit_ = self.exit_.to_dict()
        else:
            exit_ = self.exit_

        stderr: None | str | Unset
        if isinstance(self.stderr, Unset):
            stderr = UNSET
        else:
            stderr = self.stderr

        stdout: None | str | Unset
        if isinstance(self.stdout, Unset):
            stdout = UNSET
        else:
            stdout = self.stdout

        truncated: bool | None | Unset
        if isinstance(self.truncated, Unset):
            truncated = UNSET
        else:
            truncated = self.truncated

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "dropped_bytes": dropped_bytes,
                "id": id,
                "output_bytes": output_bytes,
                "running": running,
            }
        )
        if exit_ is not UNSET:
            field_dict["exit"] = exit_
        if stderr is not UNSET:
            field_dict["stderr"] = stderr
        if stdout is not UNSET:
            field_dict["stdout"] = stdout
        if truncated is not UNSET:
            field_dict["truncated"] = truncated

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.exit_view import ExitView

        d = dict(src_dict)
        dropped_bytes = d.pop("dropped_bytes")

        id = d.pop("id")

        output_bytes = d.pop("output_bytes")

        running = d.pop("running")

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

        def _parse_stderr(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        stderr = _parse_stderr(d.pop("stderr", UNSET))

        def _parse_stdout(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        stdout = _parse_stdout(d.pop("stdout", UNSET))

        def _parse_truncated(data: object) -> bool | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(bool | None | Unset, data)

        truncated = _parse_truncated(d.pop("truncated", UNSET))

        exec_view = cls(
            dropped_bytes=dropped_bytes,
            id=id,
            output_bytes=output_bytes,
            running=running,
            exit_=exit_,
            stderr=stderr,
            stdout=stdout,
            truncated=truncated,
        )

        exec_view.additional_properties = d
        return exec_view

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
