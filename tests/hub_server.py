"""A server on loopback in the layout of the Hugging Face hub: made-up repositories, whole or failing."""

import hashlib
import http.server
import json
import threading
import urllib.parse


class HubServer:
    """Serves repositories until it is stopped; a context manager.

    Attributes:
      address: http://127.0.0.1:<port>.
      requests: (method, path, range) of all requests so far.
      refusals: paths of files with the status and the X-Error-Code that they are refused with.
      unknown: status and X-Error-Code of what does not exist; without a login the hub says 401.
      instead: verbs of the API ("revision", "tree") with what is answered to them, as a network's login page may be.
      cuts: paths of files with the number of bytes after which the connection breaks, once.
    """

    def __init__(self):
        self.repositories = {}
        self.requests, self.refusals, self.cuts, self.instead = [], {}, {}, {}
        self.unknown = (401, "")
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.requests.append((self.command, self.path, self.headers.get("Range")))
                answer(hub, self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Stops answering; a second call does nothing."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def publish(self, repository, files, branch="main"):
        """Adds a commit to a repository ("datasets/<org>/<name>" or "<org>/<name>"); returns its hash."""
        commits, branches = self.repositories.setdefault(repository, ({}, {}))
        files = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        commit = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits[commit], branches[branch] = files, commit
        return commit

    def downloads(self):
        """The files that were sent, wholly or in part."""
        return [path.split("/resolve/")[1].split("/", 1)[1] for method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path]  # fmt: skip


def answer(hub, request):
    path = urllib.parse.urlsplit(request.path).path
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.path).query))
    if path.startswith("/api/") and path.count("/") < 6:
        return send(request, 404, {})
    if path.startswith("/api/"):
        kind, org, name, verb, revision, *rest = path.removeprefix("/api/").split("/")
        repository = f"{org}/{name}" if kind == "models" else f"{kind}/{org}/{name}"
    else:
        repository, rest = path[1:].split("/resolve/")
        verb, (revision, *rest) = "resolve", rest.split("/")
    if repository not in hub.repositories:
        status, code = hub.unknown
        return send(request, status, {"X-Error-Code": code} if code else {})
    commits, branches = hub.repositories[repository]
    commit = branches.get(urllib.parse.unquote(revision), revision)
    if commit not in commits:
        return send(request, 404, {"X-Error-Code": "RevisionNotFound"})
    inside = urllib.parse.unquote("/".join(rest))
    if verb in hub.instead:
        return send(request, 200, {}, hub.instead[verb])
    if verb == "revision":
        return send(request, 200, {}, json.dumps({"id": repository.removeprefix("datasets/"), "sha": commit}).encode())
    if verb == "tree":
        return send_tree(request, commits[commit], inside, query.get("recursive") in ("True", "true"))
    return send_file(hub, request, commits[commit], inside, commit)


def send_tree(request, files, folder, recursive):
    inside = {name: data for name, data in files.items() if not folder or name.startswith(f"{folder}/")}
    if not inside:
        return send(request, 404, {"X-Error-Code": "EntryNotFound"})
    entries = {}
    for name, data in inside.items():
        rest = name.removeprefix(f"{folder}/").split("/") if folder else name.split("/")
        if len(rest) == 1 or recursive:
            entries[name] = {"type": "file", "path": name, "size": len(data), "oid": etag(data)}
        else:
            path = f"{folder}/{rest[0]}".lstrip("/")
            entries[path] = {"type": "directory", "path": path, "oid": "0" * 40}
    return send(request, 200, {}, json.dumps(list(entries.values())).encode())


def send_file(hub, request, files, name, commit):
    if name in hub.refusals:
        status, code = hub.refusals[name]
        return send(request, status, {"X-Error-Code": code} if code else {})
    if name not in files:
        return send(request, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
    data, headers = files[name], {"X-Repo-Commit": commit, "ETag": f'"{etag(files[name])}"', "Accept-Ranges": "bytes"}
    begin = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
    if begin:
        headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
    cut = hub.cuts.pop(name, None) if request.command == "GET" else None
    return send(request, 206 if begin else 200, headers, data[begin:], cut)


def send(request, status, headers, body=b"", cut=None):
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body[:cut])
    if cut is not None:
        request.close_connection = True


def etag(data):
    return hashlib.sha1(data).hexdigest()
