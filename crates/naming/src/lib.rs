//! Target URIs and the resolvers that turn them into endpoints.
