{{- define "ragstone.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ragstone.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "ragstone.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "ragstone.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "ragstone.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ragstone.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ragstone.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "ragstone.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "ragstone.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{ .Values.image.repository }}:{{ $tag }}{{ if .Values.gpu.enabled }}-cuda{{ end }}
{{- end }}

{{- define "ragstone.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "ragstone.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What a pod needs to end: the wait for balancers, the server's own drain and grace, and a checkpoint. */}}
{{- define "ragstone.terminationGracePeriodSeconds" -}}
{{- $server := addf .Values.settings.drain_s .Values.settings.shutdown_grace_s | ceil | int -}}
{{- add .Values.shutdown.preStopSeconds $server .Values.shutdown.closeSeconds }}
{{- end }}

{{/* Two servers with a catalog each would be two services that know nothing of one another. */}}
{{- define "ragstone.requireSharedCatalog" -}}
{{- if and (or (gt (int .Values.replicas) 1) .Values.autoscaling.enabled) (not .Values.database.existingSecret) }}
{{- fail "more than one server needs a shared catalog: set database.existingSecret" }}
{{- end }}
{{- end }}
