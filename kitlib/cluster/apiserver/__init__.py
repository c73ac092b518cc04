"""kube-apiserver: REST verbs, discovery, OpenAPI, tables, patches, admission, authentication."""
