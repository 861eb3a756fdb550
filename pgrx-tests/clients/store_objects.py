"""Copies the objects of a bucket into a directory: store_objects.py KIND ENDPOINT BUCKET DIRECTORY, where KIND is s3 or az;
makes the bucket without the last."""

import pathlib
import sys


class S3:
    def __init__(self, endpoint, bucket):
        import boto3

        self.bucket = bucket
        self.s3 = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

    def make(self):
        self.s3.create_bucket(Bucket=self.bucket)

    def objects(self):
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for found in page.get("Contents", []):
                yield found["Key"], self.s3.get_object(Bucket=self.bucket, Key=found["Key"])["Body"].read()


class Azure:
    # The account that every Azurite has.
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def __init__(self, endpoint, bucket):
        from azure.storage.blob import ContainerClient

        self.container = ContainerClient(endpoint, bucket, {"account_name": "devstoreaccount1", "account_key": self.KEY})

    def make(self):
        self.container.create_container()

    def objects(self):
        for name in self.container.list_blob_names():
            yield name, self.container.download_blob(name).readall()


kind, endpoint, bucket, *directory = sys.argv[1:]
store = {"s3": S3, "az": Azure}[kind](endpoint, bucket)
if not directory:
    store.make()
else:
    for name, content in store.objects():
        path = pathlib.Path(directory[0], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
