"""How a kubelet carries exec, attach and port-forward: SPDY/3.1 and websocket, as client-go's clients speak them.

Stands for the streaming server of the container runtime interface (`k8s.io/kubelet/pkg/cri/streaming`).
"""
