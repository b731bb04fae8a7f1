"""An S3-compatible store that checks signatures: moto's server, with one user and one bucket.

Of what a package registry offers, it is the one that is kept up and that refuses a wrong key.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.process import Server, answers, free_port

BUCKET = "artifacts"
_REGION = "us-east-1"
_UNSIGNED = 3
"""How many calls moto takes without credentials: those that make the user and its key."""


@dataclass(frozen=True)
class Access:
    """What a client needs to reach the bucket."""

    endpoint: str
    key: str
    secret: str
    bucket: str = BUCKET

    def client(self, service: str = "s3") -> Any:
        """A boto3 client with these credentials."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=_REGION,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )

    def keys(self, prefix: str) -> list[str]:
        """The names of the objects that begin with `prefix`."""
        pages = (
            self.client()
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self.bucket, Prefix=prefix)
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


class S3:
    """The server process."""

    def __init__(self, root: Path) -> None:
        self.port = free_port()
        self._server = Server(
            "the S3 server",
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            root / "s3.log",
            os.environ | {"INITIAL_NO_AUTH_ACTION_COUNT": str(_UNSIGNED)},
        )

    def start(self) -> Access:
        """Start it, with a user and a bucket."""
        self._server.start(lambda: answers(self.port), 60)
        endpoint = f"http://127.0.0.1:{self.port}"
        iam = Access(endpoint, "nobody", "nothing").client("iam")
        iam.create_user(UserName="zenml")
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="zenml", PolicyName="s3", PolicyDocument=document)
        made = iam.create_access_key(UserName="zenml")["AccessKey"]
        access = Access(endpoint, made["AccessKeyId"], made["SecretAccessKey"])
        access.client().create_bucket(Bucket=BUCKET)
        return access

    def stop(self) -> None:
        """End it; what it held is gone."""
        self._server.stop()
