"""What one account lets another do in its buckets and repositories, and what signed URLs are worth afterwards."""
import base64
import json
import urllib.error
import urllib.request

import pytest

from tests.conformance.test_accounts import Account, allow, policy, trusting
from tests.harness.engine import ACCOUNT, REGION
from tests.harness.wire import exchange, printed, refused

THEIRS = "777788889999"


@pytest.fixture(scope="module")
def home(engine):
    return Account(engine, ACCOUNT, engine.credentials())


@pytest.fixture(scope="module")
def other(engine):
    made = printed(engine.run("account", "create", THEIRS).stdout)
    return Account(engine, THEIRS, (made["aws_access_key_id"], made["aws_secret_access_key"]))


def fetched(url):
    """Status and body of a URL."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_signed_url_is_worth_what_its_signer_may_when_it_is_used(home, name):
    """Proves: IAM-26, IAM-42"""
    s3, iam = home.client("s3"), home.client("iam")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="k", Body=b"kept")
    read = {"Bucket": name, "Key": "k"}
    role = home.role(name, trusting({"AWS": ACCOUNT}), allow("s3:GetObject"))
    user = home.user(f"{name}-u"[:60], allow("sts:AssumeRole"))
    lent = home.client("sts", user).assume_role(RoleArn=role, RoleSessionName="signs")["Credentials"]
    signer = home.client("s3", (lent["AccessKeyId"], lent["SecretAccessKey"]), lent["SessionToken"])
    url = signer.generate_presigned_url("get_object", Params=read)
    assert fetched(url) == (200, b"kept")
    s3.put_bucket_policy(Bucket=name, Policy=policy(
        {"Effect": "Deny", "Principal": {"AWS": role}, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}))
    status, told = fetched(url)
    assert status == 403 and b"with an explicit deny in a resource-based policy" in told, told
    s3.delete_bucket_policy(Bucket=name)
    assert fetched(url) == (200, b"kept")
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=policy(allow("s3:PutObject")))
    status, told = fetched(url)
    assert status == 403 and b"<Code>AccessDenied</Code>" in told, told
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=policy(allow("s3:GetObject")))
    assert fetched(url) == (200, b"kept")
    iam.delete_role_policy(RoleName=name, PolicyName="inline")
    iam.delete_role(RoleName=name)
    assert fetched(url)[0] in (400, 403)
    # A role of the same name is another role.
    home.role(name, trusting({"AWS": ACCOUNT}), allow("s3:GetObject"))
    assert fetched(url)[0] in (400, 403)


def test_a_bucket_of_another_account_is_written_but_not_governed(home, other, name):
    """Proves: IAM-23, IAM-65"""
    mine, theirs = home.client("s3"), other.client("s3")
    mine.create_bucket(Bucket=name)
    mine.put_bucket_policy(Bucket=name, Policy=policy(
        allow("s3:*", [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"], Principal={"AWS": THEIRS})))
    theirs.put_object(Bucket=name, Key="theirs", Body=b"x", ExpectedBucketOwner=ACCOUNT)
    refused("AccessDenied", theirs.put_object, Bucket=name, Key="theirs", Body=b"x", ExpectedBucketOwner=THEIRS)
    # Objects are the bucket owner's, whoever wrote them.
    assert mine.get_object(Bucket=name, Key="theirs")["Body"].read() == b"x"
    owners = {found["Owner"]["ID"] for found in theirs.list_objects_v2(Bucket=name, FetchOwner=True)["Contents"]}
    assert owners == {ACCOUNT}
    assert mine.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"] == [
        {"ObjectOwnership": "BucketOwnerEnforced"}]
    for call, arguments in [
        (theirs.get_bucket_policy, {}), (theirs.put_bucket_policy, {"Policy": policy()}), (theirs.delete_bucket_policy, {}),
    ]:
        refused("MethodNotAllowed", call, Bucket=name, **arguments)
    # Copies read the one bucket and write the other: both owners are asked, and may be expected.
    source, target = {"Bucket": name, "Key": "theirs"}, f"{name}-2"
    theirs.create_bucket(Bucket=target)
    theirs.copy_object(Bucket=target, Key="c", CopySource=source, ExpectedBucketOwner=THEIRS, ExpectedSourceBucketOwner=ACCOUNT)
    refused("AccessDenied", theirs.copy_object, Bucket=target, Key="c", CopySource=source, ExpectedSourceBucketOwner=THEIRS)
    refused("AccessDenied", mine.copy_object, Bucket=target, Key="c", CopySource=source)
    # The owner's root keeps its hand on a policy that shuts everybody out.
    shut = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]}
    mine.put_bucket_policy(Bucket=name, Policy=policy(shut))
    for client in (mine, theirs):
        refused("AccessDenied", client.get_object, Bucket=name, Key="theirs")
    mine.delete_bucket_policy(Bucket=name)
    assert mine.get_object(Bucket=name, Key="theirs")["Body"].read() == b"x"


def test_a_repository_lets_another_account_pull_by_its_policy(engine, home, other, name):
    """Proves: IAM-23, IAM-67"""
    mine, theirs = home.client("ecr"), other.client("ecr")
    mine.create_repository(repositoryName=name)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    mine.put_image(repositoryName=name, imageManifest=manifest, imageTag="1")
    arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}"
    puller = other.client("ecr", other.user(f"{name}-p"[:60], allow("ecr:*")))
    powerless = other.client("ecr", other.user(f"{name}-n"[:60], allow("ecr:GetAuthorizationToken")))
    wanted = {"registryId": ACCOUNT, "repositoryName": name, "imageIds": [{"imageTag": "1"}]}

    def pulled(client):
        """The same by the registry's own protocol."""
        token = client.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        assert base64.b64decode(token).startswith(b"AWS:")
        return exchange(engine.url, "GET", f"/v2/{name}/manifests/1", {"authorization": f"Basic {token}"}).status

    for stranger in (puller, theirs, powerless):
        error = refused("AccessDeniedException", stranger.batch_get_image, **wanted)
        assert "because no resource-based policy allows the ecr:BatchGetImage action" in str(error), error
        assert pulled(stranger) in (401, 403)
    refused("RepositoryPolicyNotFoundException", mine.get_repository_policy, repositoryName=name)
    refused("RepositoryPolicyNotFoundException", mine.delete_repository_policy, repositoryName=name)
    for broken in ("no", policy({"Effect": "Allow", "Action": "ecr:BatchGetImage"}), json.dumps({"Statement": [{"Effect": "Maybe"}]})):
        refused("InvalidParameterException", mine.set_repository_policy, repositoryName=name, policyText=broken)
    text = policy({"Sid": "Pull", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{THEIRS}:root"}, "Action": [
        "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]})
    assert mine.set_repository_policy(repositoryName=name, policyText=text)["registryId"] == ACCOUNT
    assert mine.get_repository_policy(repositoryName=name)["policyText"] == text
    for allowed in (puller, theirs):
        (image,) = allowed.batch_get_image(**wanted)["images"]
        assert (image["registryId"], image["imageManifest"]) == (ACCOUNT, manifest)
        assert pulled(allowed) == 200
    error = refused("AccessDeniedException", powerless.batch_get_image, **wanted)
    assert "because no identity-based policy allows" in str(error) and pulled(powerless) in (401, 403)
    # Tags of a repository are read where its policy says so.
    refused("AccessDeniedException", theirs.list_tags_for_resource, resourceArn=arn)
    refused("AccessDeniedException", theirs.tag_resource, resourceArn=arn, tags=[{"Key": "k", "Value": "v"}])
    mine.tag_resource(resourceArn=arn, tags=[{"Key": "k", "Value": "mine"}])
    told = policy({"Effect": "Allow", "Principal": {"AWS": THEIRS}, "Action": "ecr:ListTagsForResource"}, *json.loads(text)["Statement"])
    mine.set_repository_policy(repositoryName=name, policyText=told)
    assert theirs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "k", "Value": "mine"}]
    refused("AccessDeniedException", theirs.untag_resource, resourceArn=arn, tagKeys=["k"])
    refused("AccessDeniedException", powerless.list_tags_for_resource, resourceArn=arn)
    # Reading is all that was given.
    refused("AccessDeniedException", theirs.put_image, registryId=ACCOUNT, repositoryName=name, imageManifest=manifest, imageTag="2")
    refused("AccessDeniedException", theirs.set_repository_policy, registryId=ACCOUNT, repositoryName=name, policyText=text)
    refused("RepositoryNotFoundException", theirs.batch_get_image, repositoryName=name, imageIds=[{"imageTag": "1"}])
    # An explicit deny binds the owner too.
    deny = {"Effect": "Deny", "Principal": "*", "Action": "ecr:BatchGetImage"}
    mine.set_repository_policy(repositoryName=name, policyText=policy(deny))
    error = refused("AccessDeniedException", mine.batch_get_image, **wanted)
    assert f"on resource: {arn} with an explicit deny in a resource-based policy" in str(error), error
    assert pulled(mine) in (401, 403)
    assert mine.delete_repository_policy(repositoryName=name)["policyText"] == policy(deny)
    assert mine.batch_get_image(**wanted)["images"] and pulled(mine) == 200
    refused("AccessDeniedException", theirs.batch_get_image, **wanted)
