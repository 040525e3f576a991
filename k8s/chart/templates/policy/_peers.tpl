{{- define "engine.toNames" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
      podSelector:
        matchLabels: {k8s-app: kube-dns}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{- define "engine.toDatabase" -}}
- to:
    {{- if .Values.local.enabled }}
    - podSelector:
        matchLabels:
          {{- include "engine.selector" (list . "postgres") | nindent 10 }}
    {{- end }}
    {{- range .Values.database.cidrs }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  ports: [{port: {{ .Values.database.port }}, protocol: TCP}]
{{- end -}}

{{- define "engine.toIstiod" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: istio-system}
      podSelector:
        matchLabels: {app: istiod}
  ports: [{port: 15012, protocol: TCP}]
{{- end -}}
