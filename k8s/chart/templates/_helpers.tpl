{{/* Labels of an object; `component` as in the list of (root, component). */}}
{{- define "engine.labels" -}}
{{- $root := index . 0 -}}
{{ include "engine.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: transaction-engine
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end -}}

{{/* The labels that select pods: they never change, for selectors cannot. */}}
{{- define "engine.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: engine
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "engine.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
{{- end -}}
{{- end -}}

{{/* A pod that can do nothing but its work. */}}
{{- define "engine.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "engine.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "engine.workloadKind" -}}
{{- if eq .Values.delivery.strategy "rolling" -}}Deployment{{- else -}}Rollout{{- end -}}
{{- end -}}

{{- define "engine.workloadApi" -}}
{{- if eq .Values.delivery.strategy "rolling" -}}apps/v1{{- else -}}argoproj.io/v1alpha1{{- end -}}
{{- end -}}

{{/* A database URL with the password still to be filled in by external-secrets,
     which escapes it: a `@` or `/` in it would otherwise cut the URL. */}}
{{- define "engine.databaseUrl" -}}
postgres://{{ `{{ .username }}:{{ .password | urlquery }}` }}@{{ index . 1 }}:{{ (index . 0).Values.database.port }}/{{ (index . 0).Values.database.name }}?sslmode={{ (index . 0).Values.database.sslMode }}
{{- if (index . 0).Values.database.caConfigMap.name }}&sslrootcert={{ include "engine.databaseCaFile" (index . 0) }}{{ end -}}
{{- end -}}

{{/* Who may vouch for the database: a file in every pod that talks to it. A pod whose
     ConfigMap is missing does not start, rather than believe whoever answers. */}}
{{- define "engine.databaseCaFile" -}}
/etc/engine/database-ca/{{ .Values.database.caConfigMap.key }}
{{- end -}}

{{- define "engine.databaseCaMount" -}}
- {name: database-ca, mountPath: /etc/engine/database-ca, readOnly: true}
{{- end -}}

{{- define "engine.databaseCaVolume" -}}
- name: database-ca
  configMap: {name: {{ .Values.database.caConfigMap.name }}}
{{- end -}}

{{/* The same with a password of local's values, which hold nothing to be escaped. */}}
{{- define "engine.localDatabaseUrl" -}}
postgres://{{ index . 1 }}:{{ index . 2 }}@{{ (index . 0).Values.database.host }}:{{ (index . 0).Values.database.port }}/{{ (index . 0).Values.database.name }}?sslmode={{ (index . 0).Values.database.sslMode }}
{{- end -}}

{{/* A job's labels: outside the mesh, for a job talks to the database alone, and a
     sidecar would neither help nor end with it. */}}
{{- define "engine.jobLabels" -}}
{{ include "engine.labels" . }}
sidecar.istio.io/inject: "false"
{{- end -}}

{{- define "engine.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation
{{- end -}}
