"""The claim survives its way through a comment, and nothing else is taken for one."""

import pytest
from hypothesis import given, strategies as st

from asyncctl.database.postgres.claim import Claim

part = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.builds(Claim, cluster=part, namespace=part, name=part, uid=part))
def test_claim_is_read_back_as_it_was_written(claim):
    assert Claim.parse(str(claim)) == claim


def test_cluster_id_may_hold_slashes():
    claim = Claim("region/one", "team", "app", "uid")
    assert Claim.parse(str(claim)) == claim


@pytest.mark.parametrize(
    "comment", [None, "", "a role of mine", "asyncctl:", "asyncctl:c/team/app", "asyncctl:c//app/uid"]
)
def test_other_comments_are_no_claims(comment):
    assert Claim.parse(comment) is None


def test_same_object_looks_past_the_uid_only():
    claim = Claim("c", "team", "app", "uid")
    assert claim.same_object(Claim("c", "team", "app", "another"))
    assert not claim.same_object(Claim("c", "team", "other", "uid"))
    assert not claim.same_object(None)
