"""Files in and out: a data set goes into a volume, sandboxes work on it, the results come back."""

from __future__ import annotations

import io

import modal

COUNT = "wc -w < /data/{name} > /results/{name}.count"


def main() -> None:
    """Count the words of some texts, each in a sandbox of its own."""
    app = modal.App.lookup("volume-files", create_if_missing=True)
    data = modal.Volume.from_name("texts", create_if_missing=True, version=2)
    with data.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"one two three\n"), "/first")
        batch.put_file(io.BytesIO(b"four five\n"), "/second")
    with modal.Volume.ephemeral() as results:
        sandboxes = [
            modal.Sandbox.create(
                "sh", "-c", COUNT.format(name=entry.path),
                app=app, image=modal.Image.debian_slim(), timeout=120,
                volumes={"/data": data.with_mount_options(read_only=True), "/results": results},
            )
            for entry in data.listdir("/")
        ]  # fmt: skip
        for sandbox in sandboxes:
            sandbox.wait()
        for entry in results.iterdir("/"):
            print(entry.path, b"".join(results.read_file(entry.path)).decode().strip())
        writer = modal.Sandbox.create(
            app=app, image=modal.Image.debian_slim(), timeout=120, volumes={"/data": data}
        )
        writer.exec("sh", "-c", "rm /data/first && echo six > /data/third").wait()
        print(sorted(entry.path for entry in data.listdir("/")))
        writer.exec("sync", "/data").wait()
        print(sorted(entry.path for entry in data.listdir("/")))
        writer.terminate()
    modal.Volume.objects.delete("texts")


if __name__ == "__main__":
    main()
