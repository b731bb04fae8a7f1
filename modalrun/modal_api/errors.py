"""Translate the errors of the Modal SDK into our own."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import socket
import sys
from collections.abc import Iterator

from modalrun.errors import (
    AuthenticationError,
    CapacityError,
    ConflictError,
    ConnectionLostError,
    NotFoundError,
    RunFailedError,
    UsageError,
)

LOG_IN = "Run 'modal setup', or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET."
_NO_RIGHT = (
    "Use a token that has the right ('modal token info' shows whose yours is), or ask for it in the"
    " Modal workspace."
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate the errors that the SDK raises in the block.

    `modal.exception.ConnectionError` and `TimeoutError` are not the builtins, and both kinds occur.

    Raises:
        AuthenticationError: Modal refuses the token, or does not allow the call.
        NotFoundError: What was named does not exist.
        CapacityError: Modal has no capacity, or limits the rate.
        ConflictError: Modal can't do it in its present state, such as start a sandbox.
        RunFailedError: An image can't be built.
        UsageError: Modal refuses an argument, or the local Modal server's disk is full.
        ConnectionLostError: Modal can't be reached, or fails.
        modal.exception.Error: One of those that callers handle: a name that is taken, the end of a
            sandbox, a part of a log that is too long.
    """
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
    from modal import exception as modal_errors

    try:
        yield
    except (
        modal_errors.AlreadyExistsError,
        modal_errors.SandboxTimeoutError,
        modal_errors.SandboxTerminatedError,
        modal_errors.LogsFetchError,
    ):
        raise
    except (modal_errors.AuthError, modal_errors.PermissionDeniedError) as error:
        denied = isinstance(error, modal_errors.PermissionDeniedError)
        problem = "Modal does not allow this" if denied else "Modal did not accept the token"
        # The local Modal server says itself what helps.
        own = "modalrun local env" in str(error)
        hint = _NO_RIGHT if denied else LOG_IN
        raise AuthenticationError(f"{problem}: {error}", hint=None if own else hint) from error
    except modal_errors.NotFoundError as error:
        raise NotFoundError(f"Modal: {error}") from error
    except modal_errors.ResourceExhaustedError as error:
        # The drivers of runs do without it.
        from modalrun.localmodal.launcher import DISK_FULL

        if DISK_FULL in str(error):
            # Of the local Modal server. To wait for room, as for a GPU, would take for ever.
            raise UsageError(str(error)) from error
        raise CapacityError(
            f"Modal has no room for this: {error}",
            hint="Try again later, another region or GPU type, or raise your Modal limits.",
            # Modal has one gRPC status for both; only the text tells them apart.
            rate_limited="rate limit" in str(error).lower(),
        ) from error
    except modal_errors.RemoteError as error:
        image_id = getattr(error, "image_id", None)
        raise RunFailedError(
            f"Modal could not build the image{f' {image_id}' if image_id else ''}: {error}"
        ) from error
    # In the SDK an InvalidError, for FAILED_PRECONDITION and ABORTED (1.6.4, `_grpc_client.py`).
    except modal_errors.ConflictError as error:
        raise ConflictError(f"Modal can't do this now: {error}", hint="Try again.") from error
    except (
        modal_errors.InvalidError,
        modal_errors.RequestSizeError,
        modal_errors.VersionError,
        modal_errors.UnimplementedError,
    ) as error:
        raise UsageError(f"Modal refuses this: {error}") from error
    except (
        modal_errors.ExecutionError,
        modal_errors.InternalError,
        modal_errors.InternalFailure,
        modal_errors.DataLossError,
    ) as error:
        raise ConnectionLostError(f"Modal failed: {error}") from error
    except (
        # Also those that a later SDK adds.
        modal_errors.Error,
        GRPCError,
        builtins.ConnectionError,
        builtins.TimeoutError,
        asyncio.TimeoutError,
        socket.gaierror,
        # From grpclib, for a connection that breaks before the answer (SDK 1.6.4).
        StreamTerminatedError,
        ProtocolError,
    ) as error:
        raise ConnectionLostError(f"The connection to Modal failed: {error}") from error
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise ConnectionLostError(f"The connection to Modal broke: {error}") from error


class WorkerGoneError(Exception):
    """The worker that held a stream is gone."""


@contextlib.contextmanager
def stream_errors() -> Iterator[None]:
    """Translate the errors of calls beneath the SDK's public surface."""
    from modal import exception as modal_errors

    with translated():
        try:
            yield
        except modal_errors.ConflictError as error:
            # The answer about a worker that a finished sandbox has left.
            raise WorkerGoneError(str(error)) from error
        except OSError as error:
            raise ConnectionResetError(str(error)) from error


def _is_of_the_network(error: Exception) -> bool:
    """Return whether an error of a library beneath the SDK is one of the connection."""
    if isinstance(error, AttributeError):
        # grpclib has dropped the transport of a connection that breaks while a call begins
        # (`grpclib/protocol.py:236`, 0.4.9).
        return error.name == "_transport"
    # The SDK uploads large files with it (1.6.4, `_utils/blob_utils.py`), and imports it then.
    http = sys.modules.get("aiohttp")
    return http is not None and isinstance(error, http.ClientError)
