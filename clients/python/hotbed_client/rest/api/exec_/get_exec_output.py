from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from ...client import AuthenticatedClient, Client
from ...models.output_line import OutputLine
from ...models.problem import Problem
from ...types import UNSET, Response, Unset


def _get_kwargs(
    id: str,
    exec_: str,
    *,
    from_: int | Unset = UNSET,
    follow: bool | Unset = UNSET,
    raw: str | Unset = UNSET,
) -> dict[str, Any]:

    params: dict[str, Any] = {}

    params["from"] = from_

    params["follow"] = follow

    params["raw"] = raw

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/v1/sessions/{id}/exec/{exec_}/output".format(
            id=quote(str(id), safe=""),
            exec_=quote(str(exec_), safe=""),
        ),
        "params": params,
    }

    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> OutputLine | Problem:
    if response.status_code == 200:
        response_200 = OutputLine.from_dict(response.content)

        return response_200

    if response.status_code == 400:
        response_400 = Problem.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Problem.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Problem.from_dict(response.json())

        return response_403

    if response.status_code == 404:
        response_404 = Problem.from_dict(response.json())

        return response_404

    if response.status_code == 422:
        response_422 = Problem.from_dict(response.json())

        return response_422

    if response.status_code == 429:
        response_429 = Problem.from_dict(response.json())

        return response_429

    if response.status_code == 503:
        response_503 = Problem.from_dict(response.json())

        return response_503

    response_default = Problem.from_dict(response.json())

    return response_default


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[OutputLine | Problem]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    id: str,
    exec_: str,
    *,
    client: AuthenticatedClient,
    from_: int | Unset = UNSET,
    follow: bool | Unset = UNSET,
    raw: str | Unset = UNSET,
) -> Response[OutputLine | Problem]:
    """Output from an offset: one JSON object a line, the last one with the exit; or raw bytes.

    Args:
        id (str):
        exec_ (str):
        from_ (int | Unset):
        follow (bool | Unset):
        raw (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[OutputLine | Problem]
    """

    kwargs = _get_kwargs(
        id=id,
        exec_=exec_,
        from_=from_,
        follow=follow,
        raw=raw,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    id: str,
    exec_: str,
    *,
    client: AuthenticatedClient,
    from_: int | Unset = UNSET,
    follow: bool | Unset = UNSET,
    raw: str | Unset = UNSET,
) -> OutputLine | Problem | None:
    """Output from an offset: one JSON object a line, the last one with the exit; or raw bytes.

    Args:
        id (str):
        exec_ (str):
        from_ (int | Unset):
        follow (bool | Unset):
        raw (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        OutputLine | Problem
    """

    return sync_detailed(
        id=id,
        exec_=exec_,
        client=client,
        from_=from_,
        follow=follow,
        raw=raw,
    ).parsed


async def asyncio_detailed(
    id: str,
    exec_: str,
    *,
    client: AuthenticatedClient,
    from_: int | Unset = UNSET,
    follow: bool | Unset = UNSET,
    raw: str | Unset = UNSET,
) -> Response[OutputLine | Problem]:
    """Output from an offset: one JSON object a line, the last one with the exit; or raw bytes.

    Args:
        id (str):
        exec_ (str):
        from_ (int | Unset):
        follow (bool | Unset):
        raw (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[OutputLine | Problem]
    """

    kwargs = _get_kwargs(
        id=id,
        exec_=exec_,
        from_=from_,
        follow=follow,
        raw=raw,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    id: str,
    exec_: str,
    *,
    client: AuthenticatedClient,
    from_: int | Unset = UNSET,
    follow: bool | Unset = UNSET,
    raw: str | Unset = UNSET,
) -> OutputLine | Problem | None:
    """Output from an offset: one JSON object a line, the last one with the exit; or raw bytes.

    Args:
        id (str):
        exec_ (str):
        from_ (int | Unset):
        follow (bool | Unset):
        raw (str | Unset):

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        OutputLine | Problem
    """

    return (
        await asyncio_detailed(
            id=id,
            exec_=exec_,
            client=client,
            from_=from_,
            follow=follow,
            raw=raw,
        )
    ).parsed
