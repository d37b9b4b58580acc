"""Small files that are whole or absent, whenever the process is killed."""

from etils import epath


def write_atomically(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it; creates the folder. To be called by one process only."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.draft"
    if isinstance(content, bytes):
        draft.write_bytes(content)
    else:
        draft.write_text(content)
    draft.replace(path)
