{{/* What the engine's pods read at their start: the settings, and the Secret with the URLs. Both are
     named by what they say. Overwritten in place, a bad setting would reach the stable pods too, at
     their next restart, when its own version has long been given up; and new pods could start before
     external-secrets has written a new address. */}}
{{- define "engine.contentHash" -}}
{{ print (include "engine.settings" .) (include "engine.urls" .) (include "engine.fetched" .) | sha256sum | trunc 8 }}
{{- end -}}

{{/* What the older ones are found by, to be taken away one day: see k8s/README.md. */}}
{{- define "engine.contentLabel" -}}
engine-settings: {{ include "engine.contentHash" . | quote }}
{{- end -}}

{{/* Helm leaves the former version's where they are: its pods, and an `undo`, still need them. */}}
{{- define "engine.contentKept" -}}
helm.sh/resource-policy: keep
{{- end -}}

{{- define "engine.settings" -}}
ENGINE_LISTEN: 0.0.0.0:5000
ENGINE_ADMIN_LISTEN: 0.0.0.0:9464
ENGINE_LOG_FORMAT: json
ENGINE_SHUTDOWN_DELAY: {{ .Values.shutdownDelaySeconds }}s
ENGINE_SHUTDOWN_GRACE: {{ .Values.shutdownGraceSeconds }}s
ENGINE_IDEMPOTENCY_RETENTION: {{ .Values.idempotencyRetention }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* For the least-privileged role, and Redis. */}}
{{- define "engine.urls" -}}
{{- if .Values.local.enabled -}}
ENGINE_DATABASE_URL: {{ include "engine.localDatabaseUrl" (list . "engine_app" .Values.local.passwords.app) }}
ENGINE_REDIS_URL: redis://{{ .Values.redis.host }}:{{ .Values.redis.port }}/0
{{- else -}}
ENGINE_DATABASE_URL: {{ include "engine.databaseUrl" (list . .Values.database.host) | quote }}
{{- with .Values.database.readHost }}
ENGINE_DATABASE_READ_URL: {{ include "engine.databaseUrl" (list $ .) | quote }}
{{- end }}
{{- if .Values.redis.host }}
ENGINE_REDIS_URL: "{{ .Values.redis.scheme }}://
  {{- if .Values.redis.passwordProperty }}:{{ `{{ .redis | urlquery }}` }}@{{ end -}}
  {{ .Values.redis.host }}:{{ .Values.redis.port }}/0"
{{- end }}
{{- end }}
{{- end -}}

{{/* Where the passwords in them come from. */}}
{{- define "engine.fetched" -}}
{{- range list "username" "password" }}
- secretKey: {{ . }}
  remoteRef: {key: {{ $.Values.externalSecrets.app }}, property: {{ . }}}
{{- end }}
{{- if .Values.redis.passwordProperty }}
- secretKey: redis
  remoteRef: {key: {{ .Values.externalSecrets.redis }}, property: {{ .Values.redis.passwordProperty }}}
{{- end }}
{{- end -}}
