"""The videos below a folder that fsspec lists: s3://bucket/videos, https://host/videos, ..."""

from __future__ import annotations

from urllib.parse import unquote

from slicfast.data.catalogs.scan import VIDEO_EXTENSIONS, Tree, check_name
from slicfast.data.preparing.remote import RemoteFolder, file_system, persistently, told
from slicfast.data.stores.format import Source
from slicfast.errors import DataError


def scan_remote(url: str) -> tuple[RemoteFolder, Tree, list[str]]:
    """The folder, its video files, and the tar files in it (URLs), by listing alone.

    Raises:
        DataError: nothing there, a listing that fails, a name that no list could hold.
        MachineError: the protocol's package is missing.
    """
    url = url.rstrip("/")
    system, root = file_system(url)
    is_web = url.startswith(("http://", "https://"))
    # A folder of a web server that does not answer would be passed over otherwise.
    options = {"on_error": "raise"} if is_web else {}
    try:
        persistently(lambda: system.ls(root, detail=False))  # some find nothing where nothing is
        entries: dict[str, dict[str, object]] = persistently(
            lambda: system.find(root, detail=True, **options)
        )
    except DataError as error:
        raise DataError(f"cannot list {url}: {error}") from None
    tree, shards = Tree(), []
    sources: dict[str, Source] = {}
    prefix = str(root).rstrip("/") + "/"
    for path, entry in entries.items():
        if not path.startswith(prefix):
            continue
        video_id = path.removeprefix(prefix)
        video_id = unquote(video_id) if is_web else video_id
        if any(part.startswith(".") for part in video_id.split("/")):
            continue
        extension = "." + video_id.rpartition(".")[2].lower()
        if extension == ".tar":
            shards.append(system.unstrip_protocol(path))
        if extension not in VIDEO_EXTENSIONS:
            tree.other_extensions[extension] += 1
            continue
        check_name(video_id, url)
        tree.ids.append(video_id)
        if entry.get("size"):  # a web server's page of links does not tell
            sources[video_id] = told(entry)
    tree.ids.sort()
    return RemoteFolder(url, sources), tree, sorted(shards)
