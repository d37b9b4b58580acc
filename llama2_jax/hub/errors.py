"""What went wrong on the hub, in one line that names the address and says what to do."""

import contextlib
import errno
import logging
import types
from collections.abc import Iterator

from llama2_jax.hub.address import Address

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class HubError(ValueError):
    """A file or model on the hub cannot be had; the message names the address and says what to do."""


def library(address: Address) -> types.ModuleType:
    """Returns the package huggingface_hub, which is imported only where an address is read.

    Raises:
      HubError: if it is not installed.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.hf_api
    except ImportError as error:
        raise HubError(f'{address}: to read from the hub, install the extra "hub": pip install -e ".[hub]"') from error
    # It logs each request, of which a set of many files needs many.
    for client in ("httpx", "httpx2"):
        logging.getLogger(client).setLevel(logging.WARNING)
    return huggingface_hub


@contextlib.contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turns the errors of huggingface_hub into a HubError."""
    errors = library(address).errors
    of_the_hub = (errors.HTTPError, errors.EntryNotFoundError, errors.RevisionResolutionError)
    try:
        yield
    # hf_xet, which fetches large files, raises OSError and RuntimeError.
    except (*of_the_hub, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        if isinstance(error, OSError) and error.filename and error.strerror:
            raise HubError(
                f"{address}: {error.filename}: {error.strerror}; the cache must be a folder to write to: HF_HUB_CACHE"
            ) from error
        # What is missing in the cache is only the consequence of why the hub did not give it.
        hidden = (errors.LocalEntryNotFoundError, errors.RevisionResolutionError)
        cause = error.__cause__ if isinstance(error, hidden) and error.__cause__ else error
        raise HubError(f"{address}: {_reason(address, cause, errors)}") from error
    except errors.HFValidationError as error:
        raise HubError(f"{address}: {_first_line(error)}") from error
    # What is read from an answer that is not the hub's own, such as the login page of a network.
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise HubError(
            f"{address}: what came back is no answer of the hub ({type(error).__name__}: {_first_line(error)}). Does a "
            f"proxy or a login page answer in its place? Open {_page(address)} in a browser, then try again"
        ) from error


def _reason(address: Address, error: Exception, errors: types.ModuleType) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return f"access is restricted: accept the licence at {_page(address)}, then {LOG_IN}"
    # Who is not logged in gets 401 also for what does not exist.
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return (
            f"there is no such repository, or it is private: check the name at {_page(address)}; for a private one "
            f"{LOG_IN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the repository has no revision {address.revision!r}; its branches and commits: {_page(address)}"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        nothing = f"no file {address.path!r} there" if address.path else "the repository has no files"
        return f"{nothing}; the files: {_page(address)}/tree/{address.revision}"
    if status == 403:
        return f"access was refused (403): accept the licence at {_page(address)} if it has one, then {LOG_IN}"
    if status == 429:
        return f"the hub asks to wait (429, too many requests): try again later; for a higher limit {LOG_IN}"
    return (
        f"cannot be read from the hub, and is not in the cache ({_first_line(error)}). Check the connection and try "
        "again: what was downloaded is kept"
    )


def _page(address: Address) -> str:
    folder = "datasets/" if address.kind == "dataset" else ""
    return f"https://huggingface.co/{folder}{address.repository}"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
