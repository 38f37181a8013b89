"""Vector and lexical indexes: every one a follower of the journal."""
